"""What hooks.toml may say, and what becomes of a request. Pure."""

import base64
import json
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, BeforeValidator, Field, RootModel, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from relay.broadcasts.model import Broadcast
from relay.messages.envelope import (
    MAX_BUTTON_TEXT,
    MAX_BUTTONS,
    MAX_TEXT,
    Button,
    Content,
    Message,
)
from relay.messages.hours import Hours
from relay.templates import Expression, Payload, Template, TemplateError, cut
from relay.validation import InvalidMessageError, model_config, validate
from relay.webhooks.signatures import Scheme, UnverifiedError

_model = model_config | {"arbitrary_types_allowed": True}

MAX_RECIPIENTS = 100
"""Recipients of one hook; a broadcast is for more."""

T = TypeVar("T", Template, Expression)


def _compiled(kind: type[T]) -> BeforeValidator:
    """Compile a field's text to a template or an expression."""

    def compiled(source: object) -> T:
        if not isinstance(source, str):
            raise PydanticCustomError("template", "must be a string")
        try:
            return kind(source)
        except TemplateError as error:
            raise PydanticCustomError("template", "{problem}", {"problem": str(error)}) from None

    return BeforeValidator(compiled)


HookName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
TemplateText = Annotated[Template, _compiled(Template)]
ExpressionText = Annotated[Expression, _compiled(Expression)]


class HooksFileError(ValueError):
    """hooks.toml has mistakes; the text says where and what to change."""


# -------------------------------------------------------------------------- what hooks.toml says


class Recipient(BaseModel):
    """Who gets a hook's messages: one subscriber, by id or number, or all of a bot's.

    Each field is a template, so the file may let the payload choose; the sender alone cannot.
    """

    model_config = _model

    subscriber_id: TemplateText | None = None
    bot_id: TemplateText | None = None
    number: TemplateText | None = None
    broadcast: TemplateText | None = None
    """The id of the bot whose subscribers all get it."""

    @model_validator(mode="after")
    def _is_an_address(self) -> Self:
        fields = {
            name: template.source if template.is_constant else _ANY_ADDRESS
            for name, template in self._templates()
        }
        try:
            _addressed(fields, {"text": "-"})
        except InvalidMessageError as error:
            raise PydanticCustomError("address", "{problem}", {"problem": str(error)}) from None
        return self

    @property
    def source(self) -> str:
        """What hooks.toml says of it, which tells it from the hook's other recipients."""
        return json.dumps({name: template.source for name, template in self._templates()})

    def address(self, payload: Payload, content: Mapping[str, object]) -> Message | Broadcast:
        """Return a message or broadcast to whom it names for a payload.

        Raises TemplateError, or InvalidMessageError if it names nobody.
        """
        return _addressed({n: t.render(payload) for n, t in self._templates()}, content)

    def _templates(self) -> Iterable[tuple[str, Template]]:
        found = ((to_camel(name), getattr(self, name)) for name in type(self).model_fields)
        return ((name, template) for name, template in found if template is not None)


_ANY_ADDRESS = "12345"
"""Stands for what a template will render, where the file is checked: both an id and a number."""


def _addressed(fields: Mapping[str, str], content: Mapping[str, object]) -> Message | Broadcast:
    if "broadcast" not in fields:
        return validate(Message, {**fields, **content})
    # Any other field is unknown to a broadcast, and so refused.
    others = {name: value for name, value in fields.items() if name != "broadcast"}
    return validate(Broadcast, {**others, "botId": fields["broadcast"], **content})


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [Recipient.model_validate(value)]


class ButtonTemplate(BaseModel):
    """A button, left out of a message for which its text is empty or its URL invalid."""

    model_config = _model

    text: TemplateText
    url: TemplateText

    @model_validator(mode="after")
    def _has_a_valid_url(self) -> Self:
        if self.url.is_constant and not _button("-", self.url.source):
            problem = {"problem": "url must start with http://, https:// or tg://"}
            raise PydanticCustomError("button_url", "{problem}", problem)
        return self


class MessageTemplate(BaseModel):
    """One message that a hook may send."""

    model_config = _model

    when: ExpressionText | None = None
    """Which payloads it is for; by default all."""
    text: TemplateText
    buttons: Annotated[tuple[ButtonTemplate, ...], Field(max_length=MAX_BUTTONS)] = ()


class Hook(BaseModel):
    """One hook: who may send, who gets it, and what the message says."""

    model_config = _model

    verify: Scheme
    to: Annotated[tuple[Recipient, ...], BeforeValidator(_listed), Field(max_length=MAX_RECIPIENTS)]
    """One recipient or a list; while it is empty, every request is ignored."""
    delivery: ExpressionText | None = None
    """What identifies a delivery; by default the scheme's own id."""
    between: Hours | None = None
    """The hours of the day in which its messages are sent."""
    messages: Annotated[tuple[MessageTemplate, ...], Field(min_length=1)]
    """The first whose `when` holds is sent; if none does, the request is ignored."""


class _Hooks(RootModel[dict[HookName, Hook]]):
    pass


def load(text: str) -> Mapping[str, Hook]:
    """Return the hooks in hooks.toml by name; raise HooksFileError naming every mistake."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HooksFileError(f"it is not TOML: {error}") from None
    try:
        return validate(_Hooks, found).root
    except InvalidMessageError as error:
        lines = [f"{'.'.join(map(str, where))}: {problem}" for where, problem in error.problems]
        raise HooksFileError("\n".join(lines)) from None


# ------------------------------------------------------------------------ what becomes of a request


@dataclass(frozen=True, slots=True)
class Request:
    """A request: header names in lower case, the body as raw bytes."""

    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Request":
        """Read an API Gateway event; raise UnverifiedError if its body cannot be decoded."""
        raw = (event.get("body") or "").encode("utf-8", "surrogatepass")
        if event.get("isBase64Encoded"):
            try:
                raw = base64.b64decode(raw, validate=True)
            except ValueError:
                raise UnverifiedError("not_base64") from None
        headers = event.get("headers") or {}
        return cls({name.lower(): value or "" for name, value in headers.items()}, raw)


@dataclass(frozen=True, slots=True)
class Addressed:
    """A message or broadcast to one recipient.

    `recipient` tells it from the delivery's others; empty if the hook has only one recipient.
    """

    message: Message | Broadcast
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """None of the hook's messages is for this payload, or nobody is to get one."""


@dataclass(frozen=True, slots=True)
class Unrenderable:
    """No message can be made of this payload: why not, and what to dead-letter."""

    reason: str
    detail: str
    body: str
    """The hook's name and the payload, as JSON."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What to send to each recipient, no address twice; and the delivery's id if it has one."""

    results: tuple[Addressed | Unrenderable, ...]
    delivery: str | None


RenderResult = Rendered | Ignored | Unrenderable


def render(name: str, hook: Hook, request: Request) -> RenderResult:
    """Render the first of the hook's messages that is for this verified request."""
    headers = {k: v for k, v in request.headers.items() if k != hook.verify.secret_header}
    try:
        payload = Payload(_parse(request.body, hook.verify.form_field), headers)
        template = next((t for t in hook.messages if not t.when or t.when.holds(payload)), None)
        if template is None or not hook.to:
            return Ignored()
        content = _content(name, hook, template, payload)
        delivery = _delivery(hook, payload)
    except (_PayloadError, TemplateError, InvalidMessageError) as error:
        reason = "hook_payload" if isinstance(error, _PayloadError) else "hook_template"
        return _unrenderable(name, request, str(error), reason)
    results: list[Addressed | Unrenderable] = []
    addressed: list[Message | Broadcast] = []
    for place, recipient in enumerate(hook.to):
        try:
            message = recipient.address(payload, content)
        except (TemplateError, InvalidMessageError) as error:
            where = f"to.{place}: " if len(hook.to) > 1 else ""
            results.append(_unrenderable(name, request, f"{where}{error}"))
            continue
        if message not in addressed:
            addressed.append(message)
            results.append(Addressed(message, recipient.source if len(hook.to) > 1 else ""))
    return Rendered(tuple(results), delivery)


def _unrenderable(
    name: str, request: Request, problem: str, reason: str = "hook_template"
) -> Unrenderable:
    return Unrenderable(reason, f"{name}: {problem}", _dead_letter_body(name, request))


class _PayloadError(ValueError):
    """The body holds no JSON for the templates."""


def _parse(body: bytes, form_field: str | None) -> object:
    """Read JSON, or else a form's field with JSON in it.

    No header decides between them: none is signed, so whoever repeats a request could choose.
    """
    with suppress(ValueError, RecursionError):
        return json.loads(body)
    if form_field:
        with suppress(ValueError, RecursionError):
            fields = parse_qs(body.decode("ascii", "replace"))
            return json.loads(fields.get(form_field, [""])[0])
    raise _PayloadError("the body is not JSON")


def _content(
    name: str, hook: Hook, template: MessageTemplate, payload: Payload
) -> Mapping[str, object]:
    buttons = [_button(b.text.render(payload), b.url.render(payload)) for b in template.buttons]
    content = {
        "text": cut(template.text.render(payload), MAX_TEXT),
        "buttons": [button for button in buttons if button],
        "reference": name,
        "between": hook.between.model_dump() if hook.between else None,
    }
    validate(Content, content)  # what is wrong with it is wrong for every recipient
    return content


def _button(text: str, url: str) -> Button | None:
    """Return a button, or None: a missing or broken link must not cost the message."""
    try:
        return validate(Button, {"text": cut(text, MAX_BUTTON_TEXT), "url": url})
    except InvalidMessageError:
        return None


def _delivery(hook: Hook, payload: Payload) -> str | None:
    expression = hook.delivery
    if expression is None and hook.verify.delivery:
        expression = Expression(hook.verify.delivery)
    return (expression.text(payload) if expression else "") or None


def _dead_letter_body(name: str, request: Request) -> str:
    return json.dumps(
        {"hook": name, "payload": request.body.decode("utf-8", "replace")}, ensure_ascii=True
    )
