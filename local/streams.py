"""What MiniStack lacks for the events: run by local.aws in MiniStack's process.

Its DynamoDB streams leave out what PartiQL writes, which is how the relay writes its records; its
event sources do not read `batchItemFailures` of a stream's batch; and nothing shows what is on a
bus. With `fitted`, all writes are in the stream, a batch that was not done whole is handed out
again, and every event on a bus of the stack's own is one line of a file.
"""

import copy
import json
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

Answer = tuple[int, Any, Any]
"""Status, headers and body."""


def fitted(events_log: Path) -> None:
    """Complete MiniStack; each event becomes a line of JSON in this file."""
    from ministack.services import dynamodb, eventbridge, lambda_svc  # noqa: PLC0415 - as above

    dynamodb._partiql_insert = _streamed(dynamodb, dynamodb._partiql_insert)  # noqa: SLF001
    dynamodb._partiql_update = _streamed(dynamodb, dynamodb._partiql_update)  # noqa: SLF001
    lambda_svc._execute_function = _whole_or_not(lambda_svc._execute_function)  # noqa: SLF001
    eventbridge._dispatch_event = _logged(eventbridge._dispatch_event, events_log)  # noqa: SLF001


def _streamed(dynamodb: Any, write: Callable[..., Answer]) -> Callable[..., Answer]:
    """Return a PartiQL write that also enters the table's stream."""

    @wraps(write)
    def written(table: dict[str, Any], parsed: Any, *data: Any) -> Answer:
        pk = _key_of(dynamodb, table, parsed)
        was = copy.deepcopy(_item(table, pk))
        answer = write(table, parsed, *data)
        if answer[0] == 200:
            name = table["TableArn"].rpartition("/")[2]
            now = copy.deepcopy(_item(table, pk))
            dynamodb._emit_stream_event(name, "MODIFY" if was else "INSERT", was, now)  # noqa: SLF001
        return answer

    return written


def _key_of(dynamodb: Any, table: dict[str, Any], parsed: Any) -> Any:
    if item := parsed.get("item"):
        item = item["M"] if set(item) == {"M"} else item
        return dynamodb._extract_key_val(item.get(table["pk_name"]))  # noqa: SLF001
    return dynamodb._partiql_key_target(table, parsed)[0]  # noqa: SLF001


def _item(table: dict[str, Any], pk: Any) -> Any:
    """Return an item of a table without a sort key; None if there is none."""
    return next(iter(table["items"].get(pk, {}).values()), None)


def _whole_or_not(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return an invocation that has failed if a part of a stream's batch has: all is repeated."""

    @wraps(execute)
    def executed(function: Any, event: Any, *others: Any, **named: Any) -> Any:
        result = execute(function, event, *others, **named)
        records = event.get("Records") if isinstance(event, dict) else None
        if not records or records[0].get("eventSource") != "aws:dynamodb" or result.get("error"):
            return result
        body = result.get("body")
        answer = json.loads(body) if isinstance(body, str | bytes) else body
        failed = isinstance(answer, dict) and answer.get("batchItemFailures")
        return {**result, "error": True} if failed else result

    return executed


def _logged(dispatch: Callable[..., Any], events_log: Path) -> Callable[..., Any]:
    """Return a dispatch to a bus's rules that first writes the event to the log."""

    @wraps(dispatch)
    def dispatched(event: dict[str, Any], *others: Any) -> Any:
        if event["EventBusName"] != "default":
            line = {
                "id": event["EventId"],
                "source": event["Source"],
                "detail-type": event["DetailType"],
                "detail": json.loads(event["Detail"]),
            }
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            file = os.open(events_log, flags, 0o600)
            with os.fdopen(file, "a", encoding="utf-8") as log:
                log.write(json.dumps(line, ensure_ascii=False) + "\n")
        return dispatch(event, *others)

    return dispatched
