"""The whole stack on this machine: `python -m local.stack up`, `down` or `run`.

`up` starts MiniStack (an AWS of one's own) and the sandbox provider on loopback, builds the
template for the Python at hand, deploys it with `sam deploy` and writes down where everything is.
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

from local import processes, trial
from local.gateway import put_gateway_responses

ROOT = Path(__file__).resolve().parent.parent
STACK_NAME = "smsgold-relay-local"
REGION = "us-east-1"
ACCESS_KEY_ID = "local"
PROVIDER_PATH = "/v1/telegram/bot"
SANDBOX_USER = "10001"
SANDBOX_PASSWORD = 'p@ss w&rd"é+%/'  # noqa: S105 - made up, and awkward in every encoding
START_TIMEOUT = 60.0  # seconds


class StackError(Exception):
    """The stack cannot start; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a stack is made with: where it keeps its files, its ports, its provider."""

    home: Path = ROOT / ".local"
    port: int = 4566
    sandbox_port: int = 4580
    provider_base_url: str = ""  # empty: the sandbox
    parameters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read PORT, SANDBOX_PORT, PROVIDER_BASE_URL and TEMPLATE_PARAMETERS."""
        return cls(
            port=_port(environment, "PORT", cls.port),
            sandbox_port=_port(environment, "SANDBOX_PORT", cls.sandbox_port),
            provider_base_url=environment.get("PROVIDER_BASE_URL", ""),
            parameters=parse_parameters(environment.get("TEMPLATE_PARAMETERS", "")),
        )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name) or str(default)
    if not (value.isdecimal() and 0 < int(value) < 65536):
        raise StackError(f"{name} must be a port's number, not {value!r}.")
    return int(value)


def parse_parameters(text: str) -> dict[str, str]:
    """Take `Name=value Name="a value"` apart."""
    try:
        pairs = [item.partition("=") for item in shlex.split(text)]
    except ValueError as error:
        raise StackError(f"TEMPLATE_PARAMETERS: {error}.") from None
    for name, equals, _ in pairs:
        if not (name.isalnum() and equals):
            raise StackError(f"TEMPLATE_PARAMETERS: {name!r} should be Name=value.")
    return {name: value for name, _, value in pairs}


def override(name: str, value: str) -> str:
    """Write a template parameter as `sam deploy` reads it, which unescapes only quotes."""
    if re.search(r"\\([\"' ]|\Z)", value):
        raise StackError(
            f"{name}: the SAM CLI cannot read a backslash before a quote, a space or the end. "
            "In JSON write a quote as \\u0022."
        )
    escaped = value.replace('"', '\\"')
    return f'{name}="{escaped}"'


def forget_accounts() -> None:
    """Drop the developer's AWS set-up from this process: the stack needs none and must use none."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


class Stack:
    """One stack, from its start to its stop."""

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
        """Start, build and deploy; return what stack.json holds. Nothing is left if this fails."""
        try:
            if down(self.home):
                self._say("Stopped the stack that ran here.")
            self._check_ports()
            self._prepare_home()
            self._start_servers()
            with self._step("Building (sam build)"):
                self._sam("build", *self._build_options())
            with self._step("Starting MiniStack and the sandbox"):
                self._await_servers()
            with self._step("Deploying (sam deploy)"):
                self._sam("deploy", *self._deploy_options())
            facts = self._describe()
            self._facts = json.dumps(facts, indent=2) + "\n"
            self._facts_path.touch(mode=0o600)
            self._facts_path.write_text(self._facts, encoding="utf-8")
        except BaseException:  # also Ctrl-C: whatever ends this early, nothing stays behind
            self.stop()
            raise
        return facts

    def stop(self) -> None:
        """End what this stack started; its logs stay, and so does a stack that replaced it."""
        processes.stop(self._mark)
        for server in self.servers.values():
            server.wait()
        self.servers.clear()
        shutil.rmtree(self._tmp, ignore_errors=True)
        with suppress(FileNotFoundError):
            if self._facts_path.read_text(encoding="utf-8") == self._facts:
                self._facts_path.unlink()

    def is_running(self) -> bool:
        """Tell whether every server still runs."""
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
                    f"Port {port} on 127.0.0.1 is taken by another program. "
                    f"Choose another, as in: make up {name}={processes.free_port()}"
                )

    def _prepare_home(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        for log in self.home.glob("*.log"):
            log.unlink()
        self._tmp.mkdir(parents=True)

    def _start_servers(self) -> None:
        self.servers["ministack"] = processes.start(
            [sys.executable, "-m", "ministack"],
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
                    "PYTHONPATH": str(ROOT),
                    "SANDBOX_USER": SANDBOX_USER,
                    "SANDBOX_PASSWORD": SANDBOX_PASSWORD,
                },
            )

    def _await_servers(self) -> None:
        addresses = {"ministack": f"{self._endpoint}/_ministack/health"}
        if "sandbox" in self.servers:
            addresses["sandbox"] = f"{self._sandbox_url}/health"
        deadline = time.monotonic() + START_TIMEOUT
        for name, address in addresses.items():
            while not _answers(address):
                if self.servers[name].poll() is not None:
                    self._fail(f"{name} ended as it started", self.home / f"{name}.log")
                if time.monotonic() > deadline:
                    self._fail(f"{name} did not start in time", self.home / f"{name}.log")
                time.sleep(0.05)

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

    def _build_options(self) -> list[str]:
        return [
            *("--template-file", str(ROOT / "template.yaml"), "--base-dir", str(ROOT)),
            *("--build-dir", str(self.home / "build"), "--cache-dir", str(self.home / "cache")),
        ]

    def _deploy_options(self) -> list[str]:
        parameters = {
            "Stage": "local",
            "ProviderBaseUrl": self.settings.provider_base_url
            or f"{self._sandbox_url}{PROVIDER_PATH}",
            **self.settings.parameters,
        }
        return [
            *("--template-file", str(self.home / "build" / "template.yaml")),
            *("--parameter-overrides", *(override(*item) for item in parameters.items())),
        ]

    def _describe(self) -> dict[str, str]:
        """Read what was deployed and fill the secret."""
        session = boto3.Session(ACCESS_KEY_ID, self.secret_access_key, region_name=REGION)
        stack = session.client("cloudformation", endpoint_url=self._endpoint).describe_stacks(
            StackName=STACK_NAME
        )["Stacks"][0]
        known = sorted(parameter["ParameterKey"] for parameter in stack["Parameters"])
        if unknown := sorted(set(self.settings.parameters) - set(known)):  # SAM ignores them
            raise StackError(
                f"TEMPLATE_PARAMETERS: the template has no parameter {', '.join(unknown)}; "
                f"it has {', '.join(known)}."
            )
        output = {entry["OutputKey"]: entry["OutputValue"] for entry in stack["Outputs"]}
        session.client("secretsmanager", endpoint_url=self._endpoint).put_secret_value(
            SecretId=output["ProviderCredentialsArn"],
            SecretString=json.dumps({"user": SANDBOX_USER, "pass": SANDBOX_PASSWORD}),
        )
        apigateway = session.client("apigateway", endpoint_url=self._endpoint)
        put_gateway_responses(apigateway, output["RestApiId"], ROOT / "template.yaml")
        key = apigateway.get_api_key(apiKey=output["ApiKeyId"], includeValue=True)
        return {
            "apiUrl": f"{self._endpoint}/_aws/execute-api/{output['RestApiId']}/v1",
            "apiKey": key["value"],
            "messagesQueueUrl": output["MessagesQueueUrl"],
            "deadLetterQueueUrl": output["DeadLetterQueueUrl"],
            "tableName": output["TableName"],
            "credentialsSecret": output["ProviderCredentialsArn"],
            "notifierFunction": output["NotifierFunctionName"],
            "senderFunction": output["SenderFunctionName"],
            "awsEndpoint": self._endpoint,
            "accessKeyId": ACCESS_KEY_ID,
            "secretAccessKey": self.secret_access_key,
            "sandboxUrl": self._sandbox_url if "sandbox" in self.servers else "",
            "region": REGION,
        }

    # -- addresses and environments -------------------------------------------------------------

    @property
    def _facts_path(self) -> Path:
        return self.home / "stack.json"

    @property
    def _endpoint(self) -> str:
        return f"http://127.0.0.1:{self.settings.port}"

    @property
    def _sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.sandbox_port}"

    @property
    def _credentials(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def _ministack_environment(self) -> dict[str, str]:
        """Build MiniStack's environment from nothing, because its functions inherit it."""
        certificates = ("SSL_CERT_FILE", "SSL_CERT_DIR")
        return {
            **{name: os.environ[name] for name in certificates if name in os.environ},
            **self._credentials,  # the account's root user; functions get their role's instead
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "TMPDIR": str(self._tmp),
            "PYTHONPATH": str(ROOT / "local" / "worker"),
            "FUNCTIONS_LOG": str(self.home / "functions.log"),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.settings.port),
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_REGION": REGION,
            "AUTH": "true",  # enforces the functions' roles
            "IOT_MTLS_ENABLED": "0",  # or it listens on one port more
            # With Docker at hand it would tidy away the containers of any other MiniStack.
            "DOCKER_HOST": f"unix://{self.home}/no-docker",
        }

    def _sam_environment(self) -> dict[str, str]:
        # The layer is built by make, which must not take over this make's variables.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        return {
            **inherited,
            **self._credentials,
            "AWS_ENDPOINT_URL": self._endpoint,
            "LAYER_TARGET": "local",
            "PYTHON": sys.executable,
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.2",  # seconds; it waits 5 where it could know at once
            "__SAM_CLI_APP_DIR": str(ROOT / ".local" / "sam"),
            "NO_PROXY": "127.0.0.1",
        }


def down(home: Path) -> int:
    """End every process of the stack at this home, whoever started it; return how many ran."""
    home = home.resolve()
    stopped = processes.stop(f"{home}#")
    (home / "stack.json").unlink(missing_ok=True)
    shutil.rmtree(home / "tmp", ignore_errors=True)
    return stopped


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False


# -- the commands -------------------------------------------------------------------------------


def _up(settings: Settings) -> None:
    facts = Stack(settings).up()
    print(f"\nThe stack is up; {settings.home}/stack.json says where. `make down` stops it.")
    print(trial.guide(facts))


def _run(settings: Settings) -> None:
    stack = Stack(settings)
    facts = stack.up()
    try:
        if facts["sandboxUrl"]:
            print(f"\n{trial.send(facts)}")
        print(f"{trial.guide(facts)}\n\nThe logs, until Ctrl-C:")
        trial.follow(stack.home, while_=stack.is_running)
        print("\nThe stack was stopped from elsewhere, or failed; the logs say which.")
    except KeyboardInterrupt:
        print()  # that is how a run ends
    finally:
        print("Stopping …")
        stack.stop()


def _down(settings: Settings) -> None:
    stopped = down(settings.home)
    print(f"Stopped {stopped} processes." if stopped else "Nothing was running.")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # cleaning up is not interrupted in its turn
    raise KeyboardInterrupt


def main() -> int:
    """Carry out the command; 1 if it fails, 130 if it is interrupted."""
    commands = {"up": _up, "down": _down, "run": _run}
    parser = argparse.ArgumentParser(prog="python -m local.stack", description=__doc__)
    parser.add_argument("command", choices=commands)
    command = commands[parser.parse_args().command]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # a real stream here
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    forget_accounts()
    try:
        command(Settings.from_environment(os.environ))
    except (StackError, trial.TrialError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
