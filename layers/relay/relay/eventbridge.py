"""CloudWatch alarms as messages: an EventBridge event in, an envelope out. Pure.

The rule in template.yaml sends the notifier `{"alarm": event, "to": address}`.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from relay.messages.envelope import MAX_TEXT

SYMBOLS = {"ALARM": "🔴", "OK": "🟢", "INSUFFICIENT_DATA": "⚪"}

CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
"""The management console's host, by partition."""


def alarm_message(event: Mapping[str, Any], to: Mapping[str, str]) -> dict[str, Any]:
    """Return the envelope that tells of an alarm's change of state."""
    detail = event["detail"]
    name, state = detail["alarmName"], detail["state"]
    before = detail.get("previousState", {}).get("value")
    lines = [
        f"{SYMBOLS.get(state['value'], '')} {name}: {state['value']}".strip(),
        f"was {before}" if before else "",
        detail.get("configuration", {}).get("description") or "",
        state.get("reason") or "",
        f"{event['account']} · {event['region']}",
    ]
    text = "\n".join(line for line in lines if line)
    return {
        **to,
        "text": text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…",
        "buttons": [{"text": "Open the alarm", "url": console_url(event)}],
        "reference": "alarm",
    }


def console_url(event: Mapping[str, Any]) -> str:
    """Return where the management console shows the alarm."""
    region = event["region"]
    partition = next(iter(event.get("resources", [])), "arn:aws:").split(":")[1]
    host = CONSOLES.get(partition, CONSOLES["aws"])
    name = quote(event["detail"]["alarmName"], safe="")
    return f"https://{region}.{host}/cloudwatch/home?region={region}#alarmsV2:alarm/{name}"
