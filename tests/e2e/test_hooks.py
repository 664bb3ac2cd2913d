"""Webhooks end to end: the schemes' own libraries as senders over HTTP, and EventBridge."""

import io
import json
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe
from samcli.yamlhelper import yaml_parse
from standardwebhooks import Webhook

from local import processes
from local.stack import STACK_NAME
from ops import dead_letters
from ops.stack import Stack, find
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox
from tests.support.verifier import OnQueue, Reader
from tests.support.webhooks import HOOKS_FILE, OFF, ROOT, SECRETS, changed, payload, signed

FILES = {
    "github": "hook_github_push.json",
    "grafana": "hook_grafana.json",
    "alertmanager": "hook_alertmanager.json",
    "sentry": "hook_sentry.json",
    "gitlab": "hook_gitlab_pipeline.json",
    "plain": "hook_plain.json",
}
FIRST_LINES = {
    "github": "🔨 romashka/storefront: a-belova pushed to main",
    "grafana": "🔥 [FIRING:2] Shop (shop)",
    "alertmanager": "🔥 FIRING ProbeFailure",
    "sentry": "🐞 ZeroDivisionError: division by zero",
    "gitlab": "❌ shop/storefront: pipeline #31 failed on main",
    "plain": "Backup done: 41 GB in 12 minutes",
}


@pytest.fixture(scope="module", autouse=True)
def secrets(deployment: Deployment) -> Iterator[None]:
    """Give every hook its secret; one of them is being rotated."""
    put_secrets(
        deployment, {**SECRETS, "standard": ["whsec_bmV3IHNlY3JldA==", SECRETS["standard"]]}
    )
    yield
    leaked = [name for name, secret in SECRETS.items() if secret in deployment.logs()]
    assert not leaked


def put_secrets(deployment: Deployment, secrets: dict[str, Any]) -> None:
    [stack] = deployment.aws("cloudformation", "describe-stacks", "--stack-name", STACK_NAME)[
        "Stacks"
    ]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    deployment.aws(
        *("secretsmanager", "put-secret-value", "--secret-id", outputs["HookSecretsArn"]),
        *("--secret-string", json.dumps(secrets)),
    )


def send(
    deployment: Deployment, name: str, body: bytes, headers: dict[str, str]
) -> requests.Response:
    return requests.post(
        f"{deployment.facts['apiUrl']}/hooks/{name}", data=body, headers=headers, timeout=30
    )


@pytest.mark.parametrize("name", FILES)
def test_each_senders_payload_arrives_as_its_text(
    deployment: Deployment, sandbox: Sandbox, name: str
) -> None:
    body = payload(FILES[name])
    headers = {"Content-Type": "application/json", **signed(name, body, time.time())}
    answer = send(deployment, name, body, headers)
    assert answer.status_code == 202, answer.text
    again = send(deployment, name, body, headers)
    assert again.status_code == 202
    assert again.json()["id"] == answer.json()["id"]
    entries = until(lambda: sandbox.ledger(text=FIRST_LINES[name]), f"message of {name}")
    assert len(entries) == 1


@pytest.fixture
def alertmanager(deployment: Deployment, tmp_path: Path) -> Iterator[str]:
    """Run Debian's Alertmanager, set up as hooks.toml says; yield its address."""
    if not (program := shutil.which("prometheus-alertmanager")):
        pytest.skip("needs Prometheus' Alertmanager: apt-get install prometheus-alertmanager")
    webhook = {
        "url": f"{deployment.facts['apiUrl']}/hooks/alertmanager",
        "http_config": {"authorization": {"credentials": SECRETS["alertmanager"]}},
    }
    route = {"receiver": "telegram", "group_by": ["alertname"]}
    config = {
        "route": {**route, "group_wait": "1s", "group_interval": "1s"},
        "receivers": [{"name": "telegram", "webhook_configs": [webhook]}],
    }
    file = tmp_path / "alertmanager.yml"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    address = f"127.0.0.1:{processes.free_port()}"
    flags = [f"--config.file={file}", f"--storage.path={tmp_path}", "--cluster.listen-address="]
    with (tmp_path / "alertmanager.log").open("w") as log:
        server = subprocess.Popen(
            [program, *flags, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    yield f"http://{address}"
    server.terminate()
    server.wait()


def test_a_real_alertmanager_as_the_sender(sandbox: Sandbox, alertmanager: str) -> None:
    def tell(instance: str, **times: str) -> bool:
        labels = {"alertname": "DiskFull", "instance": instance, "severity": "critical"}
        alert = {"labels": labels, "annotations": {"summary": f"{instance} is full"}, **times}
        try:
            return requests.post(f"{alertmanager}/api/v2/alerts", json=[alert], timeout=10).ok
        except requests.ConnectionError:
            return False

    def told(*lines: str) -> list[dict[str, Any]]:
        text = "\n".join(["🔥 FIRING DiskFull", "Severity: critical", *lines])
        return [e for e in sandbox.ledger(text="DiskFull") if e["text"] == text]

    until(lambda: tell("db-1"), "an Alertmanager that listens")
    tell("db-2")
    assert until(lambda: told("🔥 db-1 is full", "🔥 db-2 is full"), "both alerts")
    tell("db-1", endsAt=datetime.now(UTC).isoformat())
    assert until(lambda: told("✅ db-1 is full", "🔥 db-2 is full"), "one of them resolved")


def test_stripes_library_as_the_sender(deployment: Deployment, sandbox: Sandbox) -> None:
    body = changed(payload("hook_stripe.json"), id="evt_from_the_library")
    header = stripe.WebhookSignature._compute_signature
    now = int(time.time())
    signature = f"t={now},v1={header(f'{now}.{body.decode()}', SECRETS['stripe'])}"
    stripe.Webhook.construct_event(body, signature, SECRETS["stripe"])  # it believes it as well
    answer = send(deployment, "stripe", body, {"Stripe-Signature": signature})
    assert answer.status_code == 202, answer.text
    until(lambda: sandbox.ledger(text="2499.00 eur received"), "message of stripe")
    old = f"t={now - 301},v1={header(f'{now - 301}.{body.decode()}', SECRETS['stripe'])}"
    assert send(deployment, "stripe", body, {"Stripe-Signature": old}).status_code == 401


def test_the_standards_library_as_the_sender(deployment: Deployment, sandbox: Sandbox) -> None:
    text = "Счёт № 4711 — paid ✅"
    body = json.dumps({"type": "invoice.paid", "data": {"text": text}}, ensure_ascii=False)
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "msg_e2e",
        "webhook-timestamp": f"{int(now.timestamp())}",
        "webhook-signature": Webhook(SECRETS["standard"]).sign("msg_e2e", now, body),
    }
    raw = body.encode()
    assert send(deployment, "standard", raw[:-1] + b" }", headers).status_code == 401
    answer = send(deployment, "standard", raw, headers)
    assert answer.status_code == 202, answer.text
    assert send(deployment, "standard", raw, headers).json()["id"] == answer.json()["id"]
    assert len(until(lambda: sandbox.ledger(text=text), "message of the standard")) == 1


def test_a_webhook_can_start_a_broadcast(deployment: Deployment, sandbox: Sandbox) -> None:
    bot = "65f1c0a2b3d4e5f6a7b8c902"
    body = payload("hook_news.json")
    answers = [send(deployment, "news", body, signed("news", body, 0)) for _ in range(2)]
    assert [a.status_code for a in answers] == [202, 202], answers[0].text
    assert answers[0].json()["id"] == answers[1].json()["id"]
    everyone = {s["id"] for s in sandbox.subscribers(bot) if not s.get("blocked")}
    assert len(everyone) >= 3

    def all_told() -> bool:
        told = [json.loads(e["raw"]) for e in sandbox.ledger(text="The clinic is open")]
        assert len(told) <= len(everyone)
        return {message["subscriberId"] for message in told} == everyone

    assert until(all_told, "broadcast to all")


def test_what_is_not_let_in(deployment: Deployment) -> None:
    body = payload("hook_plain.json")
    good = signed("plain", body, time.time())
    for name, data, headers, status, problem in [
        ("plain", body, {}, 401, "unverified"),
        ("plain", body, {"Authorization": "Bearer wrong"}, 401, "unverified"),
        ("plain", b"\xff\xfe", {"Authorization": "\xe9"}, 401, "unverified"),
        ("nobody", body, good, 404, "not-found"),
        ("plain", b'"' + b"x" * 262_144 + b'"', good, 413, "too-large"),
    ]:
        answer = send(deployment, name, data, headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert answer.json()["type"] == f"urn:smsgold-relay:problem:{problem}"
        assert answer.json()["requestId"]


def test_an_api_key_is_asked_for_everywhere_else(deployment: Deployment) -> None:
    url = deployment.facts["apiUrl"]
    assert requests.post(f"{url}/messages", json={}, timeout=30).status_code == 403
    assert requests.post(f"{url}/hooks/plain/more", json={}, timeout=30).status_code == 403


def test_what_makes_no_message_is_a_dead_letter(deployment: Deployment) -> None:
    body = b'{"no text": "e2e"}'
    answer = send(deployment, "plain", body, signed("plain", body, time.time()))
    assert (answer.status_code, answer.json()["status"]) == (202, "failed")

    def letter() -> OnQueue | None:
        letters = Reader(deployment.facts).queue(deployment.facts["deadLetterQueueUrl"])
        return next((found for found in letters if "no text" in found.body), None)

    assert until(letter, "dead letter").attributes["reason"] == "hook_template"


# ------------------------------------------------------------------------------------ EventBridge

ALARM: dict[str, Any] = json.loads(payload("hook_alarm.json"))
ALARM_RECIPIENT = "65f1c0a2b3d4e5f6a7b8d203"
PAGE = (ROOT / "docs" / "webhooks.md").read_text("utf-8").partition("## EventBridge events")[2]
[ENTRY] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
[RULE] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def events(deployment: Deployment) -> Stack:
    """Switch the alarms on and add the documentation's hook and rule; return the stack."""
    stack = find(None, deployment.home / "stack.json")
    recipient = f'to = {{ subscriberId = "{ALARM_RECIPIENT}" }}'
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.write(ROOT / "functions" / "hooks" / "app.py", "app.py")
        archive.writestr("hooks.toml", HOOKS_FILE.replace(OFF, recipient) + ENTRY)
    stack.client("lambda").update_function_code(
        FunctionName=stack.outputs["HooksFunctionArn"], ZipFile=code.getvalue()
    )
    [(name, rule)] = yaml_parse(RULE.replace("!Ref ", "")).items()
    assert len(RULE.splitlines()) == 5
    rules = stack.client("events")
    properties = rule["Properties"]
    rules.put_rule(Name=name, EventPattern=json.dumps(properties["EventPattern"]))
    [target] = properties["Targets"]
    assert target["Arn"] == "HooksFunctionArn"
    target["Arn"] = stack.outputs[target["Arn"]]
    rules.put_targets(Rule=name, Targets=[target])
    return stack


def put_event(stack: Stack, source: str, type_: str, detail: dict[str, Any]) -> None:
    entry = {"Source": source, "DetailType": type_, "Resources": [], "Detail": json.dumps(detail)}
    answer = stack.client("events").put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0, answer


def order(number: object, phone: str = "+7 916 000 10 02") -> dict[str, Any]:
    return {"order": number, "customer": {"phone": phone}}


def test_an_alarms_change_of_state_arrives(sandbox: Sandbox, events: Stack) -> None:
    rules, name = events.client("events"), events.resources["AlarmRule"]
    pattern = rules.describe_rule(Name=name)["EventPattern"]
    assert rules.test_event_pattern(EventPattern=pattern, Event=json.dumps(ALARM))["Result"]
    # Nobody but CloudWatch may put events of its source, on AWS and here: the rule is made to take
    # another source as well, its target stays what the template made it, and so does the hook.
    other = {**json.loads(pattern), "source": ["aws.cloudwatch", "test.cloudwatch"]}
    rules.put_rule(Name=name, EventPattern=json.dumps(other))
    put_event(events, "test.cloudwatch", ALARM["detail-type"], ALARM["detail"])
    functions, function = events.client("lambda"), events.outputs["HooksFunctionArn"]
    for _ in range(2):
        functions.invoke(FunctionName=function, Payload=json.dumps(ALARM).encode())

    def told_of() -> list[dict[str, Any]]:
        ledger = sandbox.ledger(text="🔴 ServerCpuTooHigh: ALARM")
        return [entry for entry in ledger if entry["subscriberId"] == ALARM_RECIPIENT]

    [sent] = until(told_of, "alarm")
    [button] = json.loads(sent["raw"])["buttons"]
    assert button["url"].endswith("#alarmsV2:alarm/ServerCpuTooHigh")


def test_any_other_event_arrives_by_a_rule_and_an_entry(sandbox: Sandbox, events: Stack) -> None:
    put_event(events, "shop", "Order paid", order(4731))
    [sent] = until(lambda: sandbox.ledger(text="Order 4731 is paid"), "event")
    assert json.loads(sent["raw"])["number"] == "79160001002"


def test_an_events_values_choose_no_recipient_and_break_no_message(
    sandbox: Sandbox, events: Stack
) -> None:
    nasty = 'nasty", "subscriberId": "65f1c0a2b3d4e5f6a7b8d101", "x": "}} {{ <id>\n✅ forged \\'
    put_event(events, "shop", "Order paid", {**order(nasty), "subscriberId": ALARM_RECIPIENT})
    [sent] = until(lambda: sandbox.ledger(text="Order nasty"), "event")
    body = json.loads(sent["raw"])
    assert (body["number"], body.get("subscriberId")) == ("79160001002", None)
    assert body["text"] == f"Order {nasty.replace(chr(10), ' ')} is paid"


def test_no_request_reaches_what_events_reach(deployment: Deployment, events: Stack) -> None:
    for name in ("alarms", "orders"):
        assert name in HOOKS_FILE + ENTRY
        answer = send(deployment, name, json.dumps(ALARM).encode(), {})
        assert answer.status_code == 404, answer.text
    assert events.outputs["HooksFunctionArn"]


def test_an_event_that_failed_is_sent_again_from_the_dead_letter_queue(
    sandbox: Sandbox, events: Stack
) -> None:
    # On AWS it is Lambda or EventBridge that puts it there; the local ones drop it.
    event = {**ALARM, "source": "shop", "detail-type": "Order paid", "detail": order(4713)}
    reason = {"DataType": "String", "StringValue": "StoreUnavailableError"}
    for _ in range(2):
        events.client("sqs").send_message(
            QueueUrl=events.outputs["HooksDeadLetterQueueUrl"],
            MessageBody=json.dumps({**event, "id": "once"}),
            MessageAttributes={"ErrorMessage": reason},
        )
    said: list[str] = []
    dead_letters.show(events, 10, said.append)
    assert "2  StoreUnavailableError" in said[-1]
    dead_letters.redrive(events, queue="hooks", reason=None, most=None, apply=True, say=said.append)
    assert said[-1] == "2 dead letters moved back."
    assert len(until(lambda: sandbox.ledger(text="Order 4713 is paid"), "event")) == 1
