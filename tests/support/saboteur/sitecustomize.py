"""Break a function from within, as its messages order; Python imports this as a function starts.

A test puts this folder on a function's PYTHONPATH. The code under test stays as it is deployed:
only what it calls is wrapped. A text orders `[[sabotage:crash-before-post]]`, an id that contains
`no-claim`, `no-record`, `slow-record` or `crash-after-record` troubles the table. Each order is
carried out once (the table's for some seconds), as SABOTAGE_DIR remembers.
"""

import hashlib
import importlib.abc
import importlib.machinery
import os
import re
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ORDER = re.compile(r"\[\[sabotage:([a-z-]+)\]\]")
CLAIM_REFUSED = 2.0  # seconds, as all of these
RECORD_REFUSED = 15.0
RECORD_SLOW = 1.5
STALL = 60.0
MARKS = Path(os.environ.get("SABOTAGE_DIR", "."))


def first_time(what: str) -> bool:
    """Tell whether this is the first time, over all processes."""
    try:
        os.close(os.open(_mark(what), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def since_first_time(what: str) -> float:
    """Return the seconds since the first time."""
    return 0.0 if first_time(what) else time.time() - _mark(what).stat().st_mtime


def _mark(what: str) -> Path:
    return MARKS / hashlib.sha256(what.encode()).hexdigest()


def break_client(module: ModuleType) -> None:
    """Wrap the provider's client."""
    send = module.Client.send

    def sabotaged(self: Any, credentials: Any, message: Any, **how: Any) -> Any:
        found = ORDER.search(message.text)
        order = found[1] if found and first_time(message.text) else ""
        if order == "crash-before-post":
            os._exit(1)
        if order == "stall":
            time.sleep(STALL)
        if order == "poison":
            raise RuntimeError(message.text)
        verdict = send(self, credentials, message, **how)
        if order == "crash-after-post":
            os._exit(1)
        return verdict

    module.Client.send = sabotaged


def break_table(module: ModuleType) -> None:
    """Wrap every call to AWS, to trouble the writes to the table."""
    call = module.BaseClient._make_api_call

    def sabotaged(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation != "BatchExecuteStatement":
            return call(self, operation, parameters)
        statements = parameters["Statements"]
        refused = {i for i, s in enumerate(statements) if _refused(s)}
        kept = [s for i, s in enumerate(statements) if i not in refused]
        answers = iter(
            call(self, operation, {**parameters, "Statements": kept})["Responses"] if kept else []
        )
        if any(_id(s, "crash-after-record", "sent") and first_time(str(s)) for s in kept):
            os._exit(1)
        error = {"Error": {"Code": "ThrottlingError", "Message": "sabotaged"}}
        return {
            "Responses": [error if i in refused else next(answers) for i in range(len(statements))]
        }

    module.BaseClient._make_api_call = sabotaged


def break_bus(module: ModuleType) -> None:
    """Kill the publisher at every other group of events, in turn after and before it is put."""
    put = module.Bus.put

    def sabotaged(self: Any, events: Any) -> Any:
        named = f"{events[0].detail['id']} {events[0].detail['version']}"
        groups = len([*MARKS.iterdir()]) + 1 if first_time(named) else 1
        if groups % 4 == 0:
            os._exit(1)
        codes = put(self, events)
        if groups % 4 == 2:
            os._exit(1)
        return codes

    module.Bus.put = sabotaged


def _refused(statement: dict[str, Any]) -> bool:
    for part, state, seconds in (
        ("no-claim", "sending", CLAIM_REFUSED),
        ("no-record", "sent", RECORD_REFUSED),
        ("slow-record", "sent", RECORD_SLOW),
    ):
        if (id_ := _id(statement, part, state)) and since_first_time(f"{part} {id_}") < seconds:
            return True
    return False


def _id(statement: dict[str, Any], part: str, state: str) -> str:
    """Return the message's id if it contains the part and the statement writes the state."""
    values = [value.get("S", "") for value in statement["Parameters"]]
    id_ = next((v for v in values if v.startswith("message#") and part in v), "")
    return id_ if values and state in values[: values.index(id_) + 3 if id_ else 0] else ""


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules to break, and breaks them as soon as they are loaded."""

    def __init__(self, breaking: dict[str, Callable[[ModuleType], None]]) -> None:
        self._breaking = breaking

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the module as if this finder were not there, and wrap its loader."""
        del target
        if name not in self._breaking:
            return None
        breaking = self._breaking.pop(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def load(module: ModuleType) -> None:
                execute(module)
                breaking(module)

            spec.loader.exec_module = load  # type: ignore[method-assign]
        return spec


if "SABOTAGE_DIR" in os.environ:
    sys.meta_path.insert(
        0,
        Finder(
            {
                "smsgold.client": break_client,
                "botocore.client": break_table,
                "relay.outcomes.bus": break_bus,
            }
        ),
    )
    # The module of this name that would have been imported but for this one.
    for entry in sys.path:
        hidden = Path(entry, "sitecustomize.py")
        if hidden.is_file() and hidden != Path(__file__):
            runpy.run_path(str(hidden))
            break
