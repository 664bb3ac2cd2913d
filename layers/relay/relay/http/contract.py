"""The OpenAPI document: made from the routes, completed with what is common to all."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from relay.problems import CONTENT_TYPE, Problem
from smsgold import __version__

TITLE = "smsgold-relay"
VERSION = __version__
SUMMARY = "Messages to the subscribers of Telegram bots, through SMS Gold."

DESCRIPTION = """\
Hand in a message and the relay delivers it: none is lost, and none is sent twice by surprise.
Errors are RFC 9457 problem details; docs/api.md explains each of them.
"""

SECURITY_SCHEMES = {
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "The default: a key of the stack's usage plan.",
    },
    "iam": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "With ApiAuth=iam: AWS Signature Version 4, service execute-api.",
        "x-amazon-apigateway-authtype": "awsSigv4",
    },
}

TAGS = {
    "messages": "Send single messages and batches; get, cancel and resolve them.",
    "broadcasts": "Send one text to all of a bot's subscribers; follow, pause, resume and stop it.",
    "schedules": "Send messages and broadcasts at a given time, once or repeatedly.",
    "bots": "The provider's own lists.",
    "webhooks": "What other systems send, signed by each in its own way.",
    "contract": "This document, and the events' schemas.",
}
"""The groups of routes, in this order."""

LINKS = {
    name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
    for name in ("getMessage", "cancelMessage", "resolveMessage")
}
"""What can be done next with an accepted message."""

POWERTOOLS_OWN = {"HTTPValidationError", "ValidationError", "ResponseValidationError"}
"""Powertools' own error bodies; the relay answers with problems instead."""

ALWAYS = {
    403: "No valid API key, or no valid signature.",
    404: "No such address, or nothing with this name.",
    429: "Too many requests; repeat later.",
    500: "Something went wrong inside; repeat later.",
    503: "The table or a queue does not respond. This does not mean that nothing was accepted: "
    "repeat with the same key.",
}
WITH_BODY = {
    400: "The body is not JSON, or a header cannot be read.",
    413: "The body is larger than 256 KiB.",
    415: "The body is not declared as JSON.",
    422: "A field breaks a rule, or the idempotency key belongs to another message.",
}


WEBHOOK_ERRORS = {
    401: "Not verified: the signature is missing, wrong or too old.",
    403: "The sender's address is blocked by AWS WAF.",
    404: "No such hook, or one without a secret.",
    413: WITH_BODY[413],
    429: ALWAYS[429],
    500: ALWAYS[500],
    503: "The table, a queue or the hook's secret is unavailable; send it again.",
}


class Body(BaseModel):
    """The body of an answer, with camelCase names."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)

    def response(self, status: HTTPStatus, **headers: str) -> Response[Any]:
        """Return the response with this body; in header names, `_` stands for `-`."""
        return Response(
            status_code=status,
            content_type="application/json",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            body=self.model_dump_json(by_alias=True, exclude_none=True),
        )


class WebhookResult(Body):
    """What became of the message to one recipient."""

    status: Annotated[str, Field(description="The message's state; `failed`: a dead letter.")]
    id: str | None = None


class WebhookReceipt(Body):
    """What became of a webhook; there is nothing left to do for its sender."""

    status: Annotated[
        str,
        Field(
            description="The message's state; `ignored`: no message is for this payload; `failed`: "
            "none can be made, and it is a dead letter; `accepted`: see `results`."
        ),
    ]
    id: Annotated[str, Field(description="The message's id.")] | None = None
    results: (
        Annotated[
            list[WebhookResult], Field(description="Of each recipient, if there are several.")
        ]
        | None
    ) = None


def answer(
    description: str, model: type[BaseModel] | None = None, **headers: str
) -> OpenAPIResponse:
    """Describe an answer: its body and headers (`_` for `-`); an error needs only the text."""
    described: dict[str, Any] = {"description": description}
    if model:
        described["content"] = {"application/json": {"model": model}}
    if headers:
        described["headers"] = {
            name.replace("_", "-"): {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    return described  # type: ignore[return-value] # a TypedDict of just these members


def document(app: APIGatewayRestResolver) -> dict[str, Any]:
    """Return the app's OpenAPI document."""
    made: dict[str, Any] = json.loads(
        app.get_openapi_json_schema(
            title=TITLE, version=VERSION, summary=SUMMARY, description=DESCRIPTION
        )
    )
    made["servers"] = [
        {
            "url": "https://{api}.execute-api.{region}.amazonaws.com/v1",
            "variables": {"api": {"default": "api-id"}, "region": {"default": "us-east-1"}},
        }
    ]
    made["paths"]["/hooks/{name}"] = {"post": _webhook()}
    made["security"] = [{name: []} for name in SECURITY_SCHEMES]
    made["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    made["paths"] = {
        path: {
            method: operation if path.startswith("/hooks/") else _completed(operation)
            for method, operation in made["paths"][path].items()
        }
        for path in sorted(made["paths"])
    }
    schemas = {n: s for n, s in made["components"]["schemas"].items() if n not in POWERTOOLS_OWN}
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    receipt = WebhookReceipt.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= {**problem.pop("$defs"), "Problem": problem}
    schemas |= {**receipt.pop("$defs"), "WebhookReceipt": receipt}
    for status in ("200", "202"):
        made["paths"]["/messages"]["post"]["responses"][status]["links"] = LINKS
    made["components"] = {
        "schemas": {name: _untitled(schemas[name]) for name in sorted(schemas)},
        "securitySchemes": SECURITY_SCHEMES,
    }
    return made


def _webhook() -> dict[str, Any]:
    """Return the operation of the webhooks, which another function answers."""
    receipt = {"schema": {"$ref": "#/components/schemas/WebhookReceipt"}}
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "operationId": "receiveWebhook",
        "summary": "Take another system's webhook",
        "description": "It needs no API key: each hook of hooks.toml says how its sender proves "
        "who it is, and what becomes of the body. docs/webhooks.md explains it.",
        "tags": ["webhooks"],
        "security": [],
        "parameters": [{**name, "description": "The hook's name in hooks.toml."}],
        "requestBody": {
            "required": True,
            "description": "JSON as the sender makes it.",
            "content": {"application/json": {"schema": {}}},
        },
        "responses": {
            "202": {
                "description": "Handled, now or by an earlier request with the same delivery id.",
                "content": {"application/json": receipt},
            },
            **{str(s): _problem({"description": text}) for s, text in WEBHOOK_ERRORS.items()},
        },
    }


def _problem(response: Mapping[str, Any]) -> dict[str, Any]:
    """Give an error's response its body."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {**response, "content": {CONTENT_TYPE: {"schema": schema}}}


def _completed(operation: Mapping[str, Any]) -> dict[str, Any]:
    """Add the common errors, give every error its body, and restore the headers' spelling."""
    own = {int(status): dict(told) for status, told in operation["responses"].items()}
    own.pop(422, None)  # Powertools' own
    general = ALWAYS | (WITH_BODY if "requestBody" in operation else {})
    responses: dict[int, dict[str, Any]] = {s: {"description": t} for s, t in general.items()}
    responses |= own
    completed = {
        **operation,
        "responses": {
            str(s): _problem(responses[s]) if s >= 400 else responses[s] for s in sorted(responses)
        },
    }
    if "parameters" in operation:
        completed["parameters"] = [_parameter(each) for each in operation["parameters"]]
    return completed


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    """Describe an optional parameter as absent or a value, never as null."""
    schema = dict(parameter["schema"])
    given, *_ = schema.pop("anyOf", [{}])
    for name in ("title", "description"):
        schema.pop(name, None)
    named = parameter["name"].title() if parameter["in"] == "header" else parameter["name"]
    return {**parameter, "name": named, "schema": {**given, **schema}}


def _untitled(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the titles that pydantic makes of a field's name."""
    properties = {
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in schema.get("properties", {}).items()
    }
    return {**schema, **({"properties": properties} if properties else {})}
