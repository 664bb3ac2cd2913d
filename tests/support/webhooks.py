"""The shipped hooks, and requests signed as each sender signs them."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import stripe
from standardwebhooks import Webhook

from relay.webhooks.hooks import load

ROOT = Path(__file__).resolve().parents[2]
EVENTS = ROOT / "events"
HOOKS_FILE = (ROOT / "functions" / "hooks" / "hooks.toml").read_text("utf-8")
OFF = "to = [] # your recipients: this switches it on"
SHIPPED = load(HOOKS_FILE.replace(OFF, 'to = { subscriberId = "65f1c0a2b3d4e5f6a7b8d101" }'))
"""What is shipped, and what has nobody to tell is given a recipient."""

PLAIN = """
[plain]
verify = { scheme = "token" }
to = { subscriberId = "s1" }
messages = [{ text = "{{ text }}" }]
"""
"""The simplest file of hooks."""

SECRETS = {
    "github": "It's a Secret to Everybody",
    "grafana": "grafana-secret-0123456789",
    "alertmanager": "alertmanager-secret-0123456789",
    "stripe": "whsec_stripe-test-secret-0123456789",
    "sentry": "sentry-client-secret-0123456789",
    "gitlab": "gitlab-secret-token-0123456789",
    "plain": "plain-secret-token-0123456789",
    "news": "news-secret-token-0123456789",
    "standard": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
"""A secret for each hook of hooks.toml, made up or from the schemes' own documentation."""


def hexdigest(secret: str, data: bytes) -> str:
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def signed(
    hook: str, body: bytes, now: float, *, secret: str | None = None, delivery: str = "d-1"
) -> dict[str, str]:
    """Return the headers that the hook's sender would send with this body now."""
    key = secret or SECRETS[hook]
    match hook:
        case "github":
            return {
                "X-GitHub-Delivery": delivery,
                "X-GitHub-Event": "workflow_run" if b"workflow_run" in body else "push",
                "X-Hub-Signature-256": "sha256=" + hexdigest(key, body),
            }
        case "grafana":
            return {
                "X-Grafana-Alerting-Signature": hexdigest(key, b"%d:" % int(now) + body),
                "X-Grafana-Alerting-Signature-Timestamp": f"{int(now)}",
            }
        case "alertmanager" | "plain" | "news":
            return {"Authorization": f"Bearer {key}"}
        case "stripe":
            sign = stripe.WebhookSignature._compute_signature
            signature = sign(f"{int(now)}.{body.decode()}", key)
            return {"Stripe-Signature": f"t={int(now)},v0=00,v1={signature}"}
        case "sentry":
            return {
                "Request-ID": delivery,
                "Sentry-Hook-Resource": "event_alert",
                "Sentry-Hook-Timestamp": f"{int(now)}",
                "Sentry-Hook-Signature": hexdigest(key, body),
            }
        case "gitlab":
            return {"X-Gitlab-Token": key, "Idempotency-Key": delivery}
        case _:
            at = datetime.fromtimestamp(int(now), UTC)
            signature = Webhook(key).sign(delivery, at, body.decode())
            return {
                "webhook-id": delivery,
                "webhook-timestamp": f"{int(now)}",
                "webhook-signature": signature,
            }


def api_event(
    name: str, body: bytes, headers: Mapping[str, str], *, encoded: bool = False
) -> dict[str, Any]:
    """Return the event that API Gateway passes to the function."""
    return {
        "resource": "/hooks/{name}",
        "path": f"/hooks/{name}",
        "httpMethod": "POST",
        "headers": {"Content-Type": "application/json", **headers},
        "pathParameters": {"name": name},
        "requestContext": {"requestId": "r-1"},
        "body": base64.b64encode(body).decode() if encoded else body.decode(),
        "isBase64Encoded": encoded,
    }


def payload(file: str) -> bytes:
    """Return the content of a file in events/."""
    return (EVENTS / file).read_bytes()


def changed(body: bytes, **fields: object) -> bytes:
    """Return a JSON object with some fields replaced."""
    return json.dumps({**json.loads(body), **fields}).encode()
