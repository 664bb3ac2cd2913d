"""The HTTP API: routes that translate between requests and the services.

`requests` reads headers, `exception_handlers` answers errors, `contract` makes the OpenAPI
document. Every other module holds the routes of one resource, as `routes(…) -> Router`.
"""
