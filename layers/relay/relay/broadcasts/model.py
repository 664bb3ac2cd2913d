"""Broadcasts, decided without touching anything: statuses, and the steps between them.

The table keeps one item for each broadcast: the last command, how far it is enqueued, and counts of
what became of its messages. The subscribers' ids are kept beside it, in a snapshot that is taken
once. The text travels on the queues only. Times are seconds since the epoch.

Counts are made twice. Live ones are added up by the runs that send: they may fall behind, as when a
run is killed before it counts, and never run ahead. Final ones are made from the messages' records
once all have ended; only they complete a broadcast. A redrive or a resolution makes ended messages
start again, so it has the final counts made anew.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from relay.messages.envelope import (
    ID_PATTERN,
    MAX_ID,
    MAX_TEXT,
    Content,
    Number,
    ProviderId,
    one_address,
)
from relay.messages.hours import Hours, known_zone
from relay.messages.intake import scoped_id
from relay.messages.states import TERMINAL, State
from relay.templates import Expression, Template, TemplateError
from relay.validation import Location, Matching, model_config

LONGEST_PAUSE = 3 * 86400.0
"""Seconds of pause after which whoever meets a broadcast stops it. A message that is held back that
long is received about 500 times; its queue gives it up after 1,000."""

ENOUGH_TO_JUDGE = 20
"""Minimum outcomes before the refusal rate counts."""

COUNTED = sorted(TERMINAL)

_WHERE_IT_LEADS = re.compile(r"[a-z]+://[^/?#]+[/?#]", re.IGNORECASE)
"""An address up to where its path begins: a host as in `https://{{ name }}@shop.example/` would be
the name's, if that held a slash."""

FILE_PATTERN = r"^s3://[a-z0-9.-]{3,63}/recipients/[!-~]{1,1000}$"
FILE_PROBLEM = "must be s3://<the stack's bucket>/recipients/<name>, in printable ASCII"


class Cause(StrEnum):
    """Why an entry of the list gets no message; the names are the table's and the API's."""

    DUPLICATES = "duplicates"
    """It repeats another's address."""
    WITHOUT_ID = "withoutId"
    """The provider lists it without a usable id."""
    FILTERED = "filtered"
    """`where` does not hold."""
    EXCLUDED = "excluded"
    """Another broadcast reached it, or may yet."""
    UNREACHABLE = "unreachable"
    """It refused the last two messages."""
    UNRENDERABLE = "unrenderable"
    """`where` or a template fails on it, or what comes out breaks a rule."""


class Recipient(BaseModel):
    """One who gets a broadcast: by `subscriberId`, or by phone `number` at a bot."""

    model_config = model_config

    subscriber_id: ProviderId | None = Field(None, description="The subscriber's id.")
    bot_id: ProviderId | None = Field(
        None, description="The bot of `number`; by default the broadcast's."
    )
    number: Number | None = Field(None, description="Phone number in international format.")
    data: dict[str, Any] = Field(
        default_factory=dict, description="What the templates and `where` are over."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_address(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("botId") is None and data.get("number"):
            one_address({**data, "botId": "the broadcast's"})
            return data
        return one_address(data)

    @property
    def address(self) -> tuple[str, ...]:
        """The subscriber's id, which wins; or a bot's (or "", the broadcast's) and the number."""
        return (
            (self.subscriber_id,) if self.subscriber_id else (self.bot_id or "", self.number or "")
        )


def _expression(source: str) -> str:
    """Refuse what is no expression."""
    with _named_problem():
        Expression(source)
    return source


@contextmanager
def _named_problem(field: str = "") -> Iterator[None]:
    try:
        yield
    except TemplateError as error:
        told = {"problem": str(error), **({"field": field} if field else {})}
        raise PydanticCustomError("template", "{problem}", told) from None


_EXAMPLE: JsonDict = {
    "botId": "5f2b8c1d9e4a7b3c6d0e1f20",
    "template": True,
    "text": "Hello {{ name || 'friend' }}! Our spring offers are here.",
    "where": "city == 'Moscow'",
}


class BroadcastHours(Hours):
    """Hours of the day, by the clocks of one time zone or of each recipient's own."""

    timezone: Annotated[str, Field(max_length=MAX_TEXT)] = Field(
        description="The IANA time zone whose clocks count; with `template`, it may be an "
        "{{ expression }} over the recipient's entry.",
        examples=["Europe/Moscow", "{{ timezone || 'Europe/Moscow' }}"],
    )

    @field_validator("timezone")
    @classmethod
    def _zone_or_template(cls, timezone: str) -> str:
        if "{{" not in timezone:
            return known_zone(timezone)
        with _named_problem():
            Template(timezone)
        return timezone

    @property
    def differ(self) -> bool:
        """Whether they begin at another moment for each recipient."""
        return "{{" in self.timezone


class Broadcast(Content):
    """One text to all subscribers of a bot, or to those of them that it names."""

    model_config = ConfigDict(**model_config, json_schema_extra={"examples": [_EXAMPLE]})

    bot_id: ProviderId = Field(description="The bot whose subscribers get it.")
    template: StrictBool | None = Field(
        None,
        description="`true`: text and buttons hold {{ expressions }} over the subscriber's entry, "
        "or over a recipient's `data`. `false`: braces are sent as they are. Left out: a text that "
        "holds {{ is refused.",
    )
    where: (
        Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_expression)] | None
    ) = Field(None, description="A JMESPath expression: who does not meet it gets nothing.")
    recipients: Annotated[list[Recipient], Field(min_length=1)] | None = Field(
        None, description="Who gets it, in place of all of the bot's subscribers."
    )
    recipients_from: (
        Annotated[str, Field(max_length=1100), Matching(FILE_PATTERN, FILE_PROBLEM)] | None
    ) = Field(None, description="The same as a file: JSON Lines in the stack's bucket.")
    exclude: Annotated[str, Matching(ID_PATTERN, "must be a broadcast's id")] | None = Field(
        None,
        description="Another broadcast's id: whoever got that one, or may yet, does not get this.",
    )
    between: BroadcastHours | None = Field(
        None, description="Only sent within these hours of the day, retries included."
    )
    include_unreachable: StrictBool = Field(
        default=False, description="Also send to those who refused the last two messages."
    )
    per_second: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="At most so many messages a second; the account's rate by default."
    )

    @model_validator(mode="after")
    def _can_be_rendered(self) -> Self:
        if self.recipients is not None and self.recipients_from is not None:
            problem = "give either recipients or recipientsFrom, not both"
            raise PydanticCustomError(
                "audience", "{problem}", {"field": "recipientsFrom", "problem": problem}
            )
        if self.between and self.between.differ and not self.template:
            problem = "must be true for an expression in between.timezone"
            raise PydanticCustomError(
                "audience", "{problem}", {"field": "template", "problem": problem}
            )
        if self.template:
            for field, source in self.sources:
                with _named_problem(field):
                    Template(source)
            with _named_problem("buttons"):
                for button in self.buttons:
                    fixed, braces, _ = button.url.partition("{{")
                    if braces and not _WHERE_IT_LEADS.match(fixed):
                        raise TemplateError(
                            "an address must begin with a fixed scheme and host, then a slash"
                        )
        return self

    @property
    def sources(self) -> Iterator[tuple[str, str]]:
        """What may be templates, by field."""
        yield "text", self.text
        for button in self.buttons:
            yield "buttons", button.text
            yield "buttons", button.url
        if self.between and self.between.differ:
            yield "between", self.between.timezone

    @property
    def hours(self) -> Hours | None:
        """The hours in which it is sent, as far as they are the same for all."""
        return None if self.between and self.between.differ else self.between

    def may_go_at(self, at: float) -> float:
        """Return the first moment from `at` on at which it may be sent to somebody."""
        at = max(at, self.send_at.timestamp()) if self.send_at else at
        return self.hours.opens_at(at) if self.hours else at

    @property
    def is_kept_apart(self) -> bool:
        """Whether its snapshot holds more than subscribers' ids, and so is not for the table."""
        return bool(self.template or self.recipients or self.recipients_from)

    def pace(self, rate: float) -> float:
        """Return how many messages a second it sends at the most; 0 for no limit."""
        return paced(self.per_second or 0, rate)


def paced(per_second: int, rate: float) -> float:
    """Return the lower of two rates, of which 0 is none."""
    return min(filter(None, (per_second, rate)), default=0.0)


def stray_braces(broadcast: Broadcast) -> list[tuple[Location, str]]:
    """Return what is wrong if braces may be meant as a template: (where, what to change) pairs.

    Whoever hands in a broadcast is told. What lies on a queue or in a schedule since before there
    were templates is sent as it is.
    """
    if broadcast.template is not None:
        return []
    problem = (
        "holds {{; set template to true if that is an expression to be filled in for each "
        "subscriber, or to false to send the braces as they are"
    )
    fields = dict.fromkeys(field for field, source in broadcast.sources if "{{" in source)
    return [((field,), problem) for field in fields]


class QueuedBroadcast(Broadcast):
    """A broadcast as it lies on the notifier's queue."""

    kind: Literal["broadcast"] = "broadcast"
    """Tells it from the firings moved back to that queue; version 0.1.0 did not write it."""
    id: Annotated[str, Field(min_length=1, max_length=MAX_ID)]

    def to_body(self) -> str:
        """Return the broadcast as a queue body."""
        content = {"kind": self.kind, **self.model_dump(mode="json", exclude_defaults=True)}
        # Escaped, so that the body has no character that SQS does not take.
        return json.dumps(content, separators=(",", ":"))


def queued_broadcast(broadcast: Broadcast, id_: str) -> QueuedBroadcast:
    """Return a broadcast as it goes on the queue, under its id."""
    fields = {name: getattr(broadcast, name) for name in Broadcast.model_fields}
    return QueuedBroadcast.model_construct(**fields, id=id_)


class Command(StrEnum):
    """The last command given to a broadcast; `fail` if its subscribers could not be listed."""

    RUN = "run"
    PAUSE = "pause"
    STOP = "stop"
    FAIL = "fail"


class Status(StrEnum):
    """Where a broadcast stands."""

    PREPARING = "preparing"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Recount:
    """A count from the messages' records, chunk by chunk, and how far it has come."""

    asked_at: float = 0.0
    """When it was asked for; 0 for the first one, that every broadcast ends with."""
    chunks: int = 0
    """The chunks counted so far: every message in them has ended."""
    counts: Mapping[State, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BroadcastRecord:
    """What the table knows of a broadcast."""

    id: str
    bot_id: str
    fingerprint: str
    created_at: float
    command: Command = Command.RUN
    commanded_at: float = 0.0
    reason: str = ""
    detail: str = ""
    reference: str = ""
    paused_for: float = 0.0
    """Seconds spent in past pauses."""
    snapshot: str = ""
    """The name of the committed snapshot; empty until there is one."""
    started_at: float = 0.0
    total: int = 0
    skipped: Mapping[Cause, int] = field(default_factory=dict)
    enqueued: int = 0
    per_second: int = 0
    """At most so many messages a second; 0 for as many as the account may send."""
    next_chunk_at: float = 0.0
    """When the next messages may go that are not enqueued yet; only with `per_second`."""
    halted: bool = False
    """Stopped, and nothing more will be enqueued."""
    counts: Mapping[State, int] = field(default_factory=dict)
    """Below zero where it was taken back that messages ended before the run that saw it counted."""
    counted_at: float = 0.0
    writes: int = 0
    """How many times the counts were written."""
    writer: str = ""
    """Who wrote them last, by a name for that one write."""
    recount: Recount = Recount()
    finished_at: float = 0.0
    """When the first recount found that all messages had ended."""
    final: bool = False
    """The counts were made from the records, and nobody has asked for another recount."""
    judged: tuple[int, int] = (0, 0)
    """Outcomes and refusals up to the last resume; the refusal rate is of those since."""

    @property
    def finished(self) -> int:
        """How many messages have ended."""
        return sum(self.counts.values())

    @property
    def shown(self) -> Mapping[State, int]:
        """The counts without the debts: none is below zero."""
        return {state: max(0, count) for state, count in self.counts.items()}

    @property
    def due(self) -> int:
        """How many messages there will be."""
        return self.enqueued if self.halted else self.total

    @property
    def awaits_snapshot(self) -> bool:
        """Return whether its subscribers are still to be listed."""
        return not self.snapshot and self.command in (Command.RUN, Command.PAUSE)

    def pause_so_far(self, now: float) -> float:
        """Return the seconds spent in pauses."""
        return self.paused_for + (now - self.commanded_at if self.command is Command.PAUSE else 0.0)

    @property
    def status(self) -> Status:
        """Where the broadcast stands. Only a write changes it, never time alone."""
        match self.command:
            case Command.FAIL:
                return Status.FAILED
            case Command.STOP:
                return Status.STOPPED
            case _ if self.finished_at:
                return Status.COMPLETED
            case Command.PAUSE:
                return Status.PAUSED
            case _:
                return Status.RUNNING if self.snapshot else Status.PREPARING

    @property
    def why(self) -> str:
        """Return the reason for its status, or ""."""
        return "" if self.status is Status.COMPLETED else self.reason


# --------------------------------------------------------------------------------- decisions


def first_record_of(broadcast: QueuedBroadcast, now: float) -> BroadcastRecord:
    """Return the record of a broadcast that is accepted now."""
    return BroadcastRecord(
        id=broadcast.id,
        bot_id=broadcast.bot_id,
        fingerprint=broadcast.fingerprint,
        created_at=now,
        commanded_at=now,
        reference=broadcast.reference or "",
        per_second=broadcast.per_second or 0,
    )


def paused(
    broadcast: BroadcastRecord, now: float, reason: str, detail: str = ""
) -> BroadcastRecord | None:
    """Return the broadcast paused, or None if it has ended or is paused already."""
    if broadcast.status not in (Status.PREPARING, Status.RUNNING):
        return None
    return replace(broadcast, command=Command.PAUSE, commanded_at=now, reason=reason, detail=detail)


def resumed(broadcast: BroadcastRecord, now: float) -> BroadcastRecord | None:
    """Return the broadcast running again, its refusals forgiven; None if it is not paused."""
    if broadcast.status is not Status.PAUSED:
        return None
    return replace(
        broadcast,
        command=Command.RUN,
        commanded_at=now,
        reason="",
        detail="",
        paused_for=broadcast.pause_so_far(now),
        judged=_outcomes(broadcast),
    )


def stopped(
    broadcast: BroadcastRecord, now: float, reason: str = "requested"
) -> BroadcastRecord | None:
    """Return the broadcast stopped for good, or None if it has ended."""
    if broadcast.status not in (Status.PREPARING, Status.RUNNING, Status.PAUSED):
        return None
    return replace(
        broadcast,
        command=Command.STOP,
        commanded_at=now,
        reason=reason,
        detail="",
        paused_for=broadcast.pause_so_far(now),
    )


def paused_too_long(broadcast: BroadcastRecord, now: float) -> BroadcastRecord | None:
    """Return the broadcast stopped because its pauses were too long, or None if they were not."""
    if broadcast.status is not Status.PAUSED or broadcast.pause_so_far(now) <= LONGEST_PAUSE:
        return None
    return stopped(broadcast, now, "paused_too_long")


def failed(broadcast: BroadcastRecord, now: float, reason: str, detail: str) -> BroadcastRecord:
    """Return the broadcast failed, before anything was enqueued."""
    return replace(broadcast, command=Command.FAIL, commanded_at=now, reason=reason, detail=detail)


def too_many_refusals(broadcast: BroadcastRecord, percent: float) -> str:
    """Return a sentence if too many messages were refused since the last resume, or "".

    `percent` is the share that is too many; 0 switches the check off.
    """
    outcomes, refusals = (
        count - before for count, before in zip(_outcomes(broadcast), broadcast.judged, strict=True)
    )
    if not percent or outcomes < ENOUGH_TO_JUDGE or refusals * 100 < percent * outcomes:
        return ""
    return f"{refusals} of {outcomes} messages were refused; the limit is {percent:g} %"


def refuses_everybody(broadcast: BroadcastRecord | None, percent: float) -> bool:
    """Return whether a broadcast's refusals say more about the provider than about anybody.

    `percent` is the share of refusals that says so, and 50 if it is 0. One that is gone says
    nothing either.
    """
    if broadcast is None:
        return True
    outcomes, refusals = _outcomes(broadcast)
    return refusals * 100 >= (percent or 50.0) * outcomes


def _outcomes(broadcast: BroadcastRecord) -> tuple[int, int]:
    counts = broadcast.shown
    rejected = counts.get(State.REJECTED, 0)
    tried = (State.SENT, State.UNKNOWN, State.FAILED)
    return rejected + sum(counts.get(state, 0) for state in tried), rejected


def hold_for(broadcast: BroadcastRecord, now: float) -> float:
    """Return the seconds that a paused broadcast's message stays off the queue, at the most.

    A quarter of the pause so far, 10 s to 10 min: a short pause ends within seconds for all of
    them, a long one costs little.
    """
    return min(600.0, max(10.0, (now - broadcast.commanded_at) / 4))


def eta(broadcast: BroadcastRecord, rate: float, now: float) -> float | None:
    """Return when the last message goes out at the account's rate (per second), if known."""
    rate = paced(broadcast.per_second, rate)
    if broadcast.status is not Status.RUNNING or not rate:
        return None
    return now + (broadcast.total - broadcast.finished) / rate


def recount_order(id_: str) -> str:
    """Return the body that asks the notifier for a recount of a broadcast."""
    return json.dumps({"kind": "recount", "id": id_}, separators=(",", ":"))


def message_id(broadcast_id: str, *address: str) -> str:
    """Return the id of a broadcast's message to an address."""
    return scoped_id("broadcast", broadcast_id, *address)
