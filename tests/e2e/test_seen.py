"""What a team sees of its stack: metrics, alarms, the canary."""

import json
from typing import Any

from tests.support.deployment import Deployment
from tests.support.poll import until

SUBSCRIBER = "65f1c0a2b3d4e5f6a7b8d101"


def metrics(deployment: Deployment) -> dict[str, float]:
    """Return what CloudWatch would count from the functions' logs, each metric's sum."""
    totals: dict[str, float] = {}
    for line in deployment.logs().splitlines():
        if '"_aws"' not in line:
            continue
        found = json.loads(line)
        assert found["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "smsgold-relay"
        assert found["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]
        for metric in found["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
            counted = found[metric["Name"]]
            total = sum(counted) if isinstance(counted, list) else counted
            totals[metric["Name"]] = totals.get(metric["Name"], 0) + total
    return totals


def put(deployment: Deployment, body: dict[str, Any]) -> None:
    deployment.aws(
        *("sqs", "send-message", "--queue-url", deployment.facts["messagesQueueUrl"]),
        *("--message-body", json.dumps(body)),
    )


def test_what_happens_to_messages_is_counted(deployment: Deployment) -> None:
    before = metrics(deployment)

    put(deployment, {"subscriberId": SUBSCRIBER, "text": "counted"})
    put(deployment, {"subscriberId": "nobody", "text": "counted"})

    for name in ("Accepted", "Sent", "Rejected", "Attempts", "ProviderLatency"):
        until(lambda name=name: metrics(deployment).get(name, 0) > before.get(name, 0), name)  # type: ignore[misc]


def test_the_canary_lists_the_bots_and_sends_nothing(deployment: Deployment) -> None:
    functions = deployment.aws("lambda", "list-functions")["Functions"]
    [name] = [f["FunctionName"] for f in functions if "CanaryFunction" in f["FunctionName"]]
    answer = deployment.home / "canary.json"

    called = deployment.aws("lambda", "invoke", "--function-name", name, str(answer))

    assert "FunctionError" not in called
    assert json.loads(answer.read_text("utf-8"))["bots"] > 0


def test_the_alarms_and_the_dashboard_are_there(deployment: Deployment) -> None:
    alarms = deployment.aws("cloudwatch", "describe-alarms")["MetricAlarms"]

    assert len(alarms) >= 10
    assert all(alarm["AlarmActions"] and alarm["AlarmDescription"] for alarm in alarms)
    assert deployment.aws("cloudwatch", "list-dashboards")["DashboardEntries"]
