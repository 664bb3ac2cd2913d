"""The errors of this package, grouped by what the caller does next.

SmsGoldError
├── ProviderError                 the provider did not return what was asked for
│   ├── ProviderUnavailableError  ask again later
│   ├── ProviderRefusedError      change the request
│   └── CredentialsRefusedError   fetch the credentials again, or correct the secret
├── CredentialsError              fix the secret, or the permission to read it
├── BaseUrlError                  fix the provider's address in the settings
└── TransportError                internal: an exchange without a response; see `classify`
    └── WithheldError             its caller did not let it begin

None of these holds a credential or a URL in its text, an attribute or a chained exception. Foreign
exceptions may (urllib3's do), so `transport_error` describes and drops them; none is ever chained.
"""

import errno
import os
import socket
import ssl
from http.client import HTTPException

from urllib3 import exceptions as urllib3_errors


class SmsGoldError(Exception):
    """Base of every error of this package."""


class ProviderError(SmsGoldError):
    """The provider did not return what was asked for."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ProviderUnavailableError(ProviderError):
    """The provider is unreachable or busy, or its response cannot be understood."""

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        timeout: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason, detail)
        self.timeout = timeout
        self.retry_after = retry_after


class ProviderRefusedError(ProviderError):
    """The provider understood the request and said no."""


class CredentialsRefusedError(ProviderError):
    """The provider refused the account's user and password."""


class CredentialsError(SmsGoldError):
    """The credentials cannot be read, or are malformed."""


class BaseUrlError(SmsGoldError, ValueError):
    """The provider's address is invalid or unsafe."""


class TransportError(SmsGoldError):
    """An exchange ended without a response; `maybe_sent` is false only if nothing can have left."""

    def __init__(self, reason: str, detail: str = "", *, maybe_sent: bool) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.maybe_sent = maybe_sent


class WithheldError(TransportError):
    """The caller withheld the request before its first byte."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, maybe_sent=False)


_BEFORE_SENDING: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("proxy", (urllib3_errors.ProxyError,)),
    ("dns", (urllib3_errors.NameResolutionError, socket.gaierror)),
    ("connect_refused", (ConnectionRefusedError,)),
    ("connect_failed", (urllib3_errors.NewConnectionError,)),
    ("connect_timeout", (urllib3_errors.ConnectTimeoutError,)),
    ("tls", (ssl.SSLCertVerificationError,)),
    (
        "connect_failed",
        (
            urllib3_errors.LocationValueError,
            urllib3_errors.EmptyPoolError,
            urllib3_errors.ClosedPoolError,
            urllib3_errors.HostChangedError,
        ),
    ),
)
"""Exceptions that occur only before a request is sent; the first matching row wins."""

_TIMEOUTS = (urllib3_errors.TimeoutError, TimeoutError)
_TLS = (urllib3_errors.SSLError, ssl.SSLError)
_BROKEN = (urllib3_errors.HTTPError, HTTPException, OSError)


def transport_error(error: BaseException, *, began: bool) -> TransportError:
    """Describe any exception of an exchange, in words that cannot hold a URL.

    `began` says whether the request had begun to leave: until then the provider cannot have acted
    on it, whatever the exception.
    """
    if isinstance(error, TransportError):
        return error
    causes = _causes(error)

    def among(kinds: tuple[type[BaseException], ...]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    unsent = next((reason for reason, kinds in _BEFORE_SENDING if among(kinds)), None)
    if unsent:
        reason = unsent
    elif among(_TIMEOUTS):
        reason = "read_timeout" if began else "connect_timeout"
    elif among(_TLS) and not began:
        reason = "tls"
    else:
        reason = "connection_lost" if among(_BROKEN) else "unexpected_error"
    return TransportError(reason, _detail(causes[-1]), maybe_sent=began and not unsent)


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and all that it wraps, outermost first."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(found) < 20:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or any(cause is seen for seen in found):
            continue
        found.append(cause)
        # urllib3 keeps the wrapped error in an attribute, an argument or the cause.
        waiting += [getattr(cause, "reason", None), *cause.args, cause.__cause__]
    return found


def _detail(cause: BaseException) -> str:
    """Return an exception's type and what the system or the TLS library says about it."""
    said: str | None = None
    if isinstance(cause, ssl.SSLError):
        # Those that Python raises itself lack both attributes.
        said = getattr(cause, "verify_message", None) or getattr(cause, "reason", None)
    elif isinstance(cause, OSError) and cause.errno and cause.errno in errno.errorcode:
        said = os.strerror(cause.errno)
    name = type(cause).__name__
    return f"{name}: {said}" if said else name
