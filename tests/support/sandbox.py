"""A sandbox for tests: one they start, or one that already runs."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import urllib3

Json = Any  # whatever JSON can hold
ROOT = Path(__file__).resolve().parents[2]


class Sandbox:
    """A sandbox and its control API; `with Sandbox() as sandbox:` starts and stops one."""

    def __init__(self, user: str = "10001", password: str = "sandbox-password") -> None:  # noqa: S107 - made up
        self._given = {"SANDBOX_USER": user, "SANDBOX_PASSWORD": password}
        self._log: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(retries=urllib3.Retry(2), timeout=30)
        self.url = self.control_url = ""

    @classmethod
    def at(cls, url: str) -> "Sandbox":
        """Return the sandbox that runs at this address."""
        sandbox = cls()
        sandbox._find(url)
        return sandbox

    def start(self) -> Self:
        """Start a sandbox process on free ports."""
        handle, name = tempfile.mkstemp(prefix="sandbox-", suffix=".log")
        self._log = Path(name)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "local.sandbox", "--port", "0"],
            cwd=ROOT,
            env=os.environ | self._given,
            stdout=handle,
            stderr=handle,
        )
        os.close(handle)
        while not (ready := re.search(r"control: (\S+)", self.log())):
            if self.process.poll() is not None:
                raise RuntimeError(f"the sandbox did not start: {self.log()}")
            time.sleep(0.02)
        self._find(ready[1])
        return self

    def stop(self) -> None:
        """Stop the process that was started."""
        self._http.clear()
        if self.process and self._log:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
            self._log.unlink()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _find(self, url: str) -> None:
        self.control_url = url.rstrip("/")
        health = self._call("GET", "/health")
        self.base_url: str = health["baseUrl"]
        self.url = health["inbox"].rstrip("/")
        self.control_url = health["controlUrl"]

    def _call(self, method: str, path: str, body: Json = None, **query: Json) -> Json:
        fields = {name: value for name, value in query.items() if value is not None}
        response = self._http.request(
            method,
            f"{self.control_url}{path}{'?' * bool(fields)}{urlencode(fields)}",
            **({} if body is None else {"json": body}),
        )
        answer = response.json()
        if response.status >= 400:
            raise ValueError(f"{method} {path}: {answer['error']}")
        return answer

    # -- the account ------------------------------------------------------------------------

    @property
    def user(self) -> str:
        """The account's user."""
        return str(self._call("GET", "/credentials")["user"])

    @property
    def password(self) -> str:
        """The newest of the valid passwords."""
        return str(self._call("GET", "/credentials")["passwords"][-1])

    def set_passwords(self, passwords: list[str], user: str | None = None) -> None:
        """Replace the valid passwords, and the user if one is given."""
        given = {"passwords": passwords} | ({"user": user} if user else {})
        self._call("PUT", "/credentials", given)

    def bots(self) -> list[dict[str, Any]]:
        """Return the bots, each with the number of its subscribers."""
        return list(self._call("GET", "/bots"))

    def add_bot(self, name: str = "Another bot", bot_id: str | None = None) -> str:
        """Add a bot without subscribers; return its id."""
        given = {"name": name} | ({"id": bot_id} if bot_id else {})
        return str(self._call("POST", "/bots", given)["id"])

    def subscribers(self, bot_id: str) -> list[dict[str, Any]]:
        """Return a bot's subscribers as the provider lists them."""
        return list(self._call("GET", f"/bots/{bot_id}/subscribers"))

    def add_subscribers(
        self, bot_id: str, subscribers: int | list[dict[str, Any]], *, blocked: bool = False
    ) -> list[dict[str, Any]]:
        """Add this many made-up subscribers, or these entries unchanged; return them."""
        body: dict[str, Any] = (
            {"count": subscribers, "blocked": blocked}
            if isinstance(subscribers, int)
            else {"subscribers": subscribers}
        )
        return list(self._call("POST", f"/bots/{bot_id}/subscribers", body))

    def remove_subscribers(self, bot_id: str) -> None:
        """Remove all of a bot's subscribers."""
        self._call("DELETE", f"/bots/{bot_id}/subscribers")

    # -- what it saw ------------------------------------------------------------------------

    def ledger(
        self, *, text: str | None = None, since: int | None = None, fields: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the accepted messages with this `text`; `fields` limits what each shows."""
        return list(self._call("GET", "/ledger", text=text, since=since, fields=fields))

    def requests(self) -> dict[str, Any]:
        """Return the requests to the provider's endpoints, and their number by outcome."""
        return dict(self._call("GET", "/requests"))

    def elsewhere(self) -> list[dict[str, Any]]:
        """Return the requests that followed a redirect to the control port."""
        return list(self._call("GET", "/elsewhere"))

    def forget(self) -> None:
        """Clear the ledger, both lists of requests and all faults."""
        for path in ("/faults", "/ledger", "/requests", "/elsewhere"):
            self._call("DELETE", path)

    def log(self) -> str:
        """Return what the started process has printed."""
        return self._log.read_text(encoding="utf-8") if self._log else ""

    # -- faults -----------------------------------------------------------------------------

    def arm(self, fault: str, **how: Json) -> int:
        """Arm a fault with `times`, `share`, `seconds` or `on`; return the switch's id."""
        return int(self._call("POST", "/faults", {"fault": fault, **how})["id"])

    def faults(self) -> list[dict[str, Any]]:
        """Return the armed faults."""
        return list(self._call("GET", "/faults"))

    def clear(self) -> None:
        """Disarm all faults."""
        self._call("DELETE", "/faults")
