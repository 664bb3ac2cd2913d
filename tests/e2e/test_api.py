"""The deployed API: its contract, its examples, and what only shows with everything at work."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import boto3
import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from relay.messages.envelope import QueuedMessage
from relay.messages.intake import Accepted, Answer, Intake
from relay.messages.queues import SqsQueues
from relay.messages.states import Rules
from relay.messages.store import TableStore
from tests.support import docs
from tests.support.deployment import Deployment
from tests.support.poll import until
from tests.support.sandbox import Sandbox
from tests.support.world import SEALS

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = int(os.environ.get("AT_ONCE", "8"))
SUBSCRIBER = "65f1c0a2b3d4e5f6a7b8d101"


@pytest.fixture(scope="module")
def http(deployment: Deployment) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["x-api-key"] = deployment.facts["apiKey"]
        yield session


def test_the_deployed_contract_is_the_committed_one(
    deployment: Deployment, http: requests.Session
) -> None:
    served = http.get(f"{deployment.facts['apiUrl']}/openapi.json", timeout=60)
    assert served.json() == json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))


def test_one_key_sent_a_hundred_times_is_one_message(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    """Each request at the same time starts a function's process: as many as fit this machine."""
    text = f"once and only once {uuid4()}"

    def post(_: int) -> requests.Response:
        return requests.post(
            f"{deployment.facts['apiUrl']}/messages",
            headers={"x-api-key": deployment.facts["apiKey"], "Idempotency-Key": text},
            json={"subscriberId": SUBSCRIBER, "text": text},
            timeout=300,
        )

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(post, range(100)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    # None says that it was first if the sender had the message before any of them wrote its record.
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) >= 99
    until(lambda: sent(deployment, answers[0].json()["id"]), "sent message", seconds=120)
    assert len(sandbox.ledger(text=text)) == 1


def test_one_key_sent_a_hundred_times_at_once_is_one_message(
    deployment: Deployment, sandbox: Sandbox
) -> None:
    """The same with a hundred threads at the very table and queue, past the functions' start."""
    facts = deployment.facts
    session = boto3.Session(facts["accessKeyId"], facts["secretAccessKey"], None, facts["region"])
    config = Config(max_pool_connections=100)
    intake = Intake(
        TableStore(
            session.client("dynamodb", endpoint_url=facts["awsEndpoint"], config=config),
            facts["tableName"],
        ),
        SqsQueues(
            session.client("sqs", endpoint_url=facts["awsEndpoint"], config=config),
            messages_url=facts["messagesQueueUrl"],
            ordered_url=facts["orderedQueueUrl"],
            dead_letter_url=facts["deadLetterQueueUrl"],
            broadcast_url="",
            notifier_url="",
            seals=SEALS,
        ),
        Rules(),
    )
    text = f"at the very same time {uuid4()}"
    message = QueuedMessage(subscriberId=SUBSCRIBER, text=text, id=uuid4().hex)
    together = Barrier(100)

    def accept(_: int) -> Answer:
        together.wait()
        return intake.accept([message], door="http")[0]

    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(accept, range(100)))
    assert all(isinstance(answer, Accepted) for answer in answers)
    assert sum(isinstance(answer, Accepted) and not answer.replayed for answer in answers) <= 1
    until(lambda: sent(deployment, str(message.id)), "sent message", seconds=120)
    assert len(sandbox.ledger(text=text)) == 1


def sent(deployment: Deployment, id_: str) -> bool:
    """Tell whether a message is sent; a copy of it that is still queued is dropped later."""
    url = f"{deployment.facts['apiUrl']}/messages/{id_}"
    state = requests.get(url, headers={"x-api-key": deployment.facts["apiKey"]}, timeout=60)
    return bool(state.json()["status"] == "sent")


def test_a_canceled_message_is_never_sent_whoever_is_first(
    deployment: Deployment, http: requests.Session, sandbox: Sandbox
) -> None:
    mark = str(uuid4())
    url = f"{deployment.facts['apiUrl']}/messages"
    canceled: set[tuple[str, str]] = set()
    sent: set[tuple[str, str]] = set()
    for n in range(12):
        text = f"{mark} {n}"
        body = {"subscriberId": SUBSCRIBER, "text": text}
        id_ = http.post(url, json=body, timeout=60).json()["id"]
        answer = http.delete(f"{url}/{id_}", timeout=60)
        assert answer.status_code in (200, 409), answer.text
        (canceled if answer.status_code == 200 else sent).add((id_, text))

    def final() -> bool:
        states = {id_: http.get(f"{url}/{id_}", timeout=60).json()["status"] for id_, _ in sent}
        return set(states.values()) <= {"sent"}

    until(final, "final state of what could not be canceled")
    arrived = {entry["text"] for entry in sandbox.ledger(text=mark)}
    assert arrived == {text for _, text in sent}
    for id_, _ in canceled:
        assert http.get(f"{url}/{id_}", timeout=60).json()["status"] == "canceled"


def test_a_message_is_sent_while_its_caller_waits(
    deployment: Deployment, http: requests.Session, sandbox: Sandbox
) -> None:
    text = f"now {uuid4()}"
    answer = http.post(
        f"{deployment.facts['apiUrl']}/messages",
        json={"subscriberId": SUBSCRIBER, "text": text},
        headers={"Prefer": "wait=10"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "sent"
    assert len(sandbox.ledger(text=text)) == 1
    # Where it says, in this stage and under any other base path.
    state = http.get(requests.compat.urljoin(answer.url, answer.headers["Location"]), timeout=60)
    assert state.json() == answer.json()


def test_the_request_and_the_message_are_followed_through_the_logs(
    deployment: Deployment, http: requests.Session
) -> None:
    url = f"{deployment.facts['apiUrl']}/messages"
    wrong = http.post(url, json={}, timeout=60).json()
    assert wrong["requestId"] in deployment.logs()
    body = {"subscriberId": "nobody", "text": "to nobody"}
    id_ = http.post(url, json=body, timeout=60).json()["id"]

    def rejected() -> bool:
        return bool(http.get(f"{url}/{id_}", timeout=60).json()["status"] == "rejected")

    until(rejected, "rejection")
    queue = deployment.facts["deadLetterQueueUrl"]
    letters = deployment.aws(
        *("sqs", "receive-message", "--max-number-of-messages", "10"),
        *("--queue-url", queue, "--visibility-timeout", "0"),
    )["Messages"]
    assert any(id_ in letter["Body"] for letter in letters)
    services = set()
    for line in deployment.logs().splitlines():
        if id_ in line and line.startswith("{"):
            services.add(json.loads(line)["function"])
    assert {"api", "sender"} <= services


@pytest.mark.parametrize("key", [None, "wrong"])
def test_what_api_gateway_refuses_is_a_problem_too(deployment: Deployment, key: str | None) -> None:
    headers = {"x-api-key": key} if key else {}
    answer = requests.get(f"{deployment.facts['apiUrl']}/bots", headers=headers, timeout=60)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:smsgold-relay:problem:forbidden"
    assert answer.json()["requestId"]


def test_the_examples_of_the_documentation_run_as_they_stand(
    deployment: Deployment, tmp_path: Path
) -> None:
    facts = deployment.facts
    # Version 1 of the AWS CLI heeds AWS_ENDPOINT_URL, but for SQS.
    aws = tmp_path / "aws"
    real = Path(sys.executable).with_name("aws")
    aws.write_text(f'#!/bin/sh\nexec {real} --endpoint-url {facts["awsEndpoint"]} "$@"\n')
    aws.chmod(0o755)
    make = tmp_path / "make"  # `make -s env` has nothing to add to the variables below
    make.write_text("#!/bin/sh\n")
    make.chmod(0o755)
    printed = docs.run(
        ROOT / "docs" / "api.md",
        folder=tmp_path,
        variables={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "API_URL": facts["apiUrl"],
            "API_KEY": facts["apiKey"],
            "MESSAGES_QUEUE_URL": facts["messagesQueueUrl"],
            "ORDERED_QUEUE_URL": facts["orderedQueueUrl"],
            "AWS_ACCESS_KEY_ID": facts["accessKeyId"],
            "AWS_SECRET_ACCESS_KEY": facts["secretAccessKey"],
            "AWS_DEFAULT_REGION": facts["region"],
        },
    )
    assert len(printed) >= 8
    everything = "".join(printed)
    assert "urn:smsgold-relay:problem:internal" not in everything
    for expected in ('"status":"queued"', '"status":"sent"', '"index":1', '{"messages":[{"id"'):
        assert expected in everything, expected
    # Whoever is first: the sender or the example.
    assert '"status":"canceled"' in everything or "not-cancelable" in everything


# -------------------------------------------------- a stack of its own, for what leaves traces


def deploy_beside(deployment: Deployment, access: str) -> dict[str, str]:
    """Deploy the same build once more, as a stack beside the first, and return its outputs."""
    facts = deployment.facts
    subprocess.run(
        [
            Path(sys.executable).with_name("sam"),
            *("deploy", "--stack-name", "beside"),
            *("--template-file", str(deployment.home / "build" / "template.yaml")),
            *("--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-progressbar"),
            *("--parameter-overrides", "Stage=local", f"ApiAuth={access}"),
            f"ProviderBaseUrl={Sandbox.at(facts['sandboxUrl']).base_url}",
        ],
        env={
            **os.environ,
            "AWS_ENDPOINT_URL": facts["awsEndpoint"],
            "AWS_ACCESS_KEY_ID": facts["accessKeyId"],
            "AWS_SECRET_ACCESS_KEY": facts["secretAccessKey"],
            "AWS_DEFAULT_REGION": facts["region"],
            "SAM_CLI_TELEMETRY": "0",
            "__SAM_CLI_APP_DIR": str(deployment.home / "sam"),
        },
        cwd=deployment.home,
        check=True,
        capture_output=True,
    )
    described = deployment.aws("cloudformation", "describe-stacks", "--stack-name", "beside")
    [stack] = described["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}


@pytest.fixture(scope="module")
def beside(deployment: Deployment) -> Iterator[dict[str, str]]:
    outputs = deploy_beside(deployment, "api-key")
    account = deployment.aws(
        *("secretsmanager", "get-secret-value"),
        *("--secret-id", deployment.facts["credentialsSecret"]),
    )
    deployment.aws(
        *("secretsmanager", "put-secret-value"),
        *("--secret-id", outputs["ProviderCredentialsArn"]),
        *("--secret-string", account["SecretString"]),
    )
    yield outputs
    deployment.aws("cloudformation", "delete-stack", "--stack-name", "beside")


def url_of(deployment: Deployment, outputs: dict[str, str]) -> str:
    return f"{deployment.facts['awsEndpoint']}/_aws/execute-api/{outputs['RestApiId']}/v1"


beside_itself = pytest.mark.skipif(
    "FUZZ_EXAMPLES" not in os.environ,
    reason="deploys a second stack and takes minutes; `make fuzz` runs it",
)


@beside_itself
def test_the_api_keeps_its_contract(
    deployment: Deployment, beside: dict[str, str], tmp_path: Path
) -> None:
    """All of schemathesis's checks, each time with other examples."""
    key = deployment.aws(
        *("apigateway", "get-api-key", "--include-value", "--api-key", beside["ApiKeyId"])
    )["value"]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            "--no-color",
            *("--config-file", str(ROOT / "tests" / "e2e" / "schemathesis.toml")),
            *("run", str(ROOT / "docs" / "openapi.json")),
            *("--max-examples", os.environ["FUZZ_EXAMPLES"]),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'layers' / 'relay'}",
            "API_URL": url_of(deployment, beside),
            "API_KEY": key,
        },
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@beside_itself
def test_iam_takes_the_place_of_the_key(deployment: Deployment, beside: dict[str, str]) -> None:
    facts = deployment.facts
    key = deployment.aws(
        *("apigateway", "get-api-key", "--include-value", "--api-key", beside["ApiKeyId"])
    )["value"]
    url = f"{url_of(deployment, beside)}/messages/some-id"
    assert requests.get(url, headers={"x-api-key": key}, timeout=60).status_code == 404

    # The local AWS makes a new API of it; AWS changes the one there is.
    url = f"{url_of(deployment, deploy_beside(deployment, 'iam'))}/messages/some-id"
    assert requests.get(url, headers={"x-api-key": key}, timeout=60).status_code == 403
    request = AWSRequest("GET", url)
    credentials = Credentials(facts["accessKeyId"], facts["secretAccessKey"])
    SigV4Auth(credentials, "execute-api", facts["region"]).add_auth(request)
    signed = requests.get(url, headers=dict(request.headers), timeout=60)
    assert signed.status_code == 404, signed.text
    assert signed.json()["detail"] == "No message has this id."
