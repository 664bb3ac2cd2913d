"""Run the whole stack on this machine: `python -m local.stack up`, `down` or `run`.

`up` starts MiniStack (a local AWS) and the sandbox on 127.0.0.1, builds the template for this
Python, deploys it with `sam deploy` and writes all addresses to stack.json. `run` does the same,
sends a message, shows the logs until Ctrl-C, and then stops everything as `down` does.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from types import FrameType
from typing import NoReturn

import boto3
import requests

from local import ROOT, aws, live_logs, processes, trial
from local.gateway import put_gateway_responses

STACK_NAME = "smsgold-relay-local"
ACCESS_KEY_ID = "local"
PROVIDER_PATH = "/v1/telegram/bot"
SANDBOX_USER = "10001"
SANDBOX_PASSWORD = 'p@ss w&rd"é+%/'  # noqa: S105 - made up; awkward in every encoding
START_TIMEOUT = 60.0  # seconds
OUTPUTS = {
    "messagesQueueUrl": "MessagesQueueUrl",
    "orderedQueueUrl": "OrderedQueueUrl",
    "deadLetterQueueUrl": "DeadLetterQueueUrl",
    "tableName": "TableName",
    "bucketName": "BucketName",
    "credentialsSecret": "ProviderCredentialsArn",
    "eventBus": "EventBusName",
    "publisherFunction": "PublisherFunctionName",
    "notifierFunction": "NotifierFunctionName",
    "senderFunction": "SenderFunctionName",
}
"""The template's outputs that stack.json holds."""


class StackError(Exception):
    """The stack cannot start; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A stack's settings: the folder for its files, its ports, its provider."""

    home: Path = ROOT / ".local"
    port: int = 4566
    sandbox_port: int = 4580
    provider_base_url: str = ""  # empty: the sandbox
    parameters: Mapping[str, str] = field(default_factory=dict)
    source: Path = ROOT
    """Whose template and code are built and deployed."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], home: Path = home) -> "Settings":
        """Read PORT, SANDBOX_PORT, PROVIDER_BASE_URL and TEMPLATE_PARAMETERS."""
        return cls(
            home=home,
            port=_port(environment, "PORT", cls.port),
            sandbox_port=_port(environment, "SANDBOX_PORT", cls.sandbox_port),
            provider_base_url=environment.get("PROVIDER_BASE_URL", ""),
            parameters=parse_parameters(environment.get("TEMPLATE_PARAMETERS", "")),
        )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not (value.isdecimal() and 0 < int(value) < 65536):
        raise StackError(f"{name} must be a port number from 1 to 65535, not {value!r}.")
    return int(value)


def parse_parameters(text: str) -> dict[str, str]:
    """Parse `Name=value Name="a value"`."""
    try:
        pairs = [item.partition("=") for item in shlex.split(text)]
    except ValueError as error:
        raise StackError(f"TEMPLATE_PARAMETERS: {error}.") from None
    for name, equals, _ in pairs:
        if not (name.isalnum() and equals):
            raise StackError(f"TEMPLATE_PARAMETERS: {name!r} is not of the form Name=value.")
    return {name: value for name, _, value in pairs}


def override(name: str, value: str) -> str:
    """Quote a template parameter for `sam deploy`, which unescapes only quotes."""
    if re.search(r"\\([\"' ]|\Z)", value):
        raise StackError(
            f"{name}: the SAM CLI cannot read a backslash before a quote, a space or the end. "
            "In JSON write a quote as \\u0022."
        )
    escaped = value.replace('"', '\\"')
    return f'{name}="{escaped}"'


def forget_accounts() -> None:
    """Remove the developer's AWS configuration from this process: the stack must not use it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


class Stack:
    """One stack, from start to stop."""

    def __init__(self, settings: Settings, say: Callable[[str], None] = print) -> None:
        self.settings = settings
        self.home = settings.home.resolve()
        self.secret_access_key = token_urlsafe(24)
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self._run = uuid.uuid4().hex
        self._mark = f"{self.home}#{self._run}"
        self._tmp = self.home / "tmp" / self._run
        self._facts = ""
        self._say = say

    # -- up and down ----------------------------------------------------------------------------

    def up(self) -> dict[str, str]:
        """Start, build and deploy; return what stack.json holds. A failure stops all of it."""
        try:
            if down(self.home):
                self._say("Stopped the stack that was running.")
            self._check_ports()
            self._prepare_home()
            self._start_servers()
            self.build(self.settings.source)
            with self._step("Starting MiniStack and the sandbox"):
                self._await_servers()
            with self._step("Deploying (sam deploy)"):
                self.deploy()
            return self.describe()
        except BaseException:  # Ctrl-C included: nothing stays behind
            self.stop()
            raise

    def build(self, source: Path) -> None:
        """Build the template and the code of a checkout."""
        with self._step("Building (sam build)"):
            self._sam("build", *self._build_options(source))

    def deploy(self, template: Path | None = None) -> None:
        """Deploy a template, by default what was built."""
        self._sam("deploy", *self._deploy_options(template))

    def describe(self) -> dict[str, str]:
        """Write what is deployed to stack.json, and return it."""
        facts = self._describe()
        self._facts = json.dumps(facts, indent=2) + "\n"
        self._facts_path.touch(mode=0o600)
        self._facts_path.write_text(self._facts, encoding="utf-8")
        return facts

    def stop(self) -> None:
        """Stop what this stack started; its logs stay, and so does a stack that replaced it."""
        processes.stop(self._mark)
        for server in self.servers.values():
            server.wait()
        self.servers.clear()
        shutil.rmtree(self._tmp, ignore_errors=True)
        with suppress(FileNotFoundError):
            if self._facts_path.read_text(encoding="utf-8") == self._facts:
                self._facts_path.unlink()

    def is_running(self) -> bool:
        """Return whether all its servers are running."""
        return all(server.poll() is None for server in self.servers.values())

    # -- the steps ------------------------------------------------------------------------------

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        self._say(f"{what} …")
        yield
        self._say(f"  {time.monotonic() - started:.1f} s")

    def _check_ports(self) -> None:
        wanted = {"PORT": self.settings.port}
        if not self.settings.provider_base_url:
            wanted["SANDBOX_PORT"] = self.settings.sandbox_port
        for name, port in wanted.items():
            if not processes.is_free(port):
                raise StackError(
                    f"Another program is using port {port} on 127.0.0.1. "
                    f"Repeat the command with a free one, such as {name}={processes.free_port()}."
                )

    def _prepare_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for log in (*self.home.glob("*.log"), *self.home.glob(aws.EVENTS_LOG)):
            log.unlink()
        self._tmp.mkdir(parents=True)

    def _start_servers(self) -> None:
        self.servers["ministack"] = processes.start(
            [sys.executable, "-m", "local.aws"],
            mark=self._mark,
            log=self.home / "ministack.log",
            environment=self._ministack_environment(),
        )
        if not self.settings.provider_base_url:
            self.servers["sandbox"] = processes.start(
                [sys.executable, "-m", "local.sandbox", "--port", str(self.settings.sandbox_port)],
                mark=self._mark,
                log=self.home / "sandbox.log",
                environment={
                    **os.environ,
                    "SANDBOX_USER": SANDBOX_USER,
                    "SANDBOX_PASSWORD": SANDBOX_PASSWORD,
                },
            )

    def _await_servers(self) -> None:
        probes = {"ministack": self._ask_ministack, "sandbox": self._ask_sandbox}
        deadline = time.monotonic() + START_TIMEOUT
        for name in self.servers:
            while not _answers(probes[name]):
                if self.servers[name].poll() is not None:
                    self._fail(f"{name} exited while starting", self.home / f"{name}.log")
                if time.monotonic() > deadline:
                    self._fail(
                        f"{name} did not start within {START_TIMEOUT:.0f} s",
                        self.home / f"{name}.log",
                    )
                time.sleep(0.05)

    def _ask_ministack(self) -> requests.Response:
        address = f"{self._endpoint}/_ministack/health"
        return aws.get(address, ACCESS_KEY_ID, self.secret_access_key, timeout=5)

    def _ask_sandbox(self) -> requests.Response:
        return requests.get(f"{self._sandbox_url}/health", timeout=5)

    def _sam(self, command: str, *options: str) -> None:
        log = self.home / f"{command}.log"
        process = processes.start(
            [Path(sys.executable).with_name("sam"), command, *self._sam_config(), *options],
            mark=self._mark,
            log=log,
            environment=self._sam_environment(),
        )
        if process.wait():
            self._fail(f"sam {command} failed", log)

    def _fail(self, what: str, log: Path) -> NoReturn:
        tail = "".join(log.read_text("utf-8", "replace").splitlines(keepends=True)[-25:])
        raise StackError(f"{what}. The end of {log}:\n\n{tail}")

    def _sam_config(self) -> list[str]:
        return ["--config-file", str(ROOT / "samconfig.toml"), "--config-env", "local"]

    def _build_options(self, source: Path) -> list[str]:
        return [
            *("--template-file", str(source / "template.yaml"), "--base-dir", str(source)),
            *("--build-dir", str(self.home / "build"), "--cache-dir", str(self.home / "cache")),
        ]

    def _deploy_options(self, template: Path | None) -> list[str]:
        parameters = {
            "Stage": "local",
            "ProviderBaseUrl": self.settings.provider_base_url
            or f"{self._sandbox_url}{PROVIDER_PATH}",
            **self.settings.parameters,
        }
        return [
            *("--template-file", str(template or self.home / "build" / "template.yaml")),
            *("--parameter-overrides", *(override(*item) for item in parameters.items())),
        ]

    def _describe(self) -> dict[str, str]:
        """Return what was deployed, after storing the sandbox's credentials in its secret."""
        session = boto3.Session(ACCESS_KEY_ID, self.secret_access_key, region_name=aws.REGION)
        stack = session.client("cloudformation", endpoint_url=self._endpoint).describe_stacks(
            StackName=STACK_NAME
        )["Stacks"][0]
        known = sorted(parameter["ParameterKey"] for parameter in stack["Parameters"])
        if unknown := sorted(set(self.settings.parameters) - set(known)):  # which SAM ignores
            raise StackError(
                f"TEMPLATE_PARAMETERS: the template has no parameter {', '.join(unknown)}. "
                f"Its parameters are {', '.join(known)}."
            )
        output = {entry["OutputKey"]: entry["OutputValue"] for entry in stack["Outputs"]}
        session.client("secretsmanager", endpoint_url=self._endpoint).put_secret_value(
            SecretId=output["ProviderCredentialsArn"],
            SecretString=json.dumps({"user": SANDBOX_USER, "pass": SANDBOX_PASSWORD}),
        )
        apigateway = session.client("apigateway", endpoint_url=self._endpoint)
        put_gateway_responses(apigateway, output["RestApiId"], ROOT / "template.yaml")
        key = apigateway.get_api_key(apiKey=output["ApiKeyId"], includeValue=True)
        parameters = {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]}
        return {
            "apiUrl": f"{self._endpoint}/_aws/execute-api/{output['RestApiId']}/v1",
            "apiKey": key["value"],
            # A stack of 0.1.0 lacks some.
            **{fact: output[name] for fact, name in OUTPUTS.items() if name in output},
            "events": parameters.get("Events", "none"),
            "awsEndpoint": self._endpoint,
            "accessKeyId": ACCESS_KEY_ID,
            "secretAccessKey": self.secret_access_key,
            "sandboxUrl": self._sandbox_url if "sandbox" in self.servers else "",
            "region": aws.REGION,
        }

    # -- addresses and environments -------------------------------------------------------------

    @property
    def aws_environment(self) -> dict[str, str]:
        """What points any AWS client at this stack."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": aws.REGION,
            "AWS_ENDPOINT_URL": self._endpoint,
        }

    @property
    def _facts_path(self) -> Path:
        return self.home / "stack.json"

    @property
    def _endpoint(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def _sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.sandbox_port}"

    def _ministack_environment(self) -> dict[str, str]:
        """Return MiniStack's environment, built from scratch because the functions inherit it."""
        certificates = ("SSL_CERT_FILE", "SSL_CERT_DIR")
        return {
            **{name: os.environ[name] for name in certificates if name in os.environ},
            **aws.environment(self.home, self.settings.port, ACCESS_KEY_ID, self.secret_access_key),
            "TMPDIR": str(self._tmp),
            "PYTHONPATH": str(ROOT / "local" / "worker"),
            "FUNCTIONS_LOG": str(self.home / "functions.log"),
        }

    def _sam_environment(self) -> dict[str, str]:
        # make builds the layer and must not inherit the variables of an outer make.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return {
            **inherited,
            **self.aws_environment,
            "LAYER_TARGET": "local",
            "PYTHON": sys.executable,
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.2",  # seconds; the default of 5 is made for AWS
            "__SAM_CLI_APP_DIR": str(ROOT / ".local" / "sam"),
            "NO_PROXY": "127.0.0.1",
        }


def down(home: Path) -> int:
    """Stop all processes of the stack in this folder, whoever started it; return how many."""
    home = home.resolve()
    stopped = processes.stop(f"{home}#")
    (home / "stack.json").unlink(missing_ok=True)
    shutil.rmtree(home / "tmp", ignore_errors=True)
    return stopped


def _answers(probe: Callable[[], requests.Response]) -> bool:
    try:
        return probe().ok
    except requests.RequestException:
        return False


# -- the commands -------------------------------------------------------------------------------


def _up(settings: Settings) -> None:
    facts = Stack(settings).up()
    print(
        f"\nThe stack is up. Its addresses are in {settings.home}/stack.json; `make down` stops it."
    )
    print(trial.guide(facts))


def _run(settings: Settings, *, raw: bool) -> None:
    stack = Stack(settings)
    facts = stack.up()
    try:
        if facts["sandboxUrl"]:
            print(f"\n{trial.send(facts)}")
        print(f"{trial.guide(facts)}\n\nThe logs, until Ctrl-C:")
        live_logs.follow(
            stack.home,
            while_=stack.is_running,
            raw=raw,
            colored=live_logs.wants_color(sys.stdout, os.environ),
        )
        print(
            f"\nThe stack has failed, or something else stopped it; see the logs in {stack.home}."
        )
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        try:
            print("\nStopping …")
        finally:  # Ctrl-C also ends whatever the output is piped to, and then print fails
            stack.stop()


def _down(settings: Settings) -> None:
    stopped = down(settings.home)
    print(f"Stopped {stopped} processes." if stopped else "Nothing was running.")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # nothing interrupts the clean-up
    raise KeyboardInterrupt


def main() -> int:
    """Run the command; return 1 if it fails, 130 if it is interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m local.stack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("up", "down", "run"))
    parser.add_argument(
        "--raw",
        action="store_true",
        help="run: print the functions' logs as they write them, in JSON",
    )
    parser.add_argument(
        "--home", type=Path, default=Settings.home, help="where its files are; .local by default"
    )
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a real stream here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    forget_accounts()
    try:
        settings = Settings.from_environment(os.environ, options.home)
        match options.command:
            case "up":
                _up(settings)
            case "down":
                _down(settings)
            case "run":
                _run(settings, raw=options.raw)
    except (StackError, trial.TrialError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
