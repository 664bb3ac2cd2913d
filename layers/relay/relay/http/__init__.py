"""The HTTP API: routes that translate between requests and what the rest of the layer does.

`problems` holds every error answer, `requests` what is read of a request, `contract` the OpenAPI
document; each other module the routes of one resource, as `routes(…) -> Router`.
"""
