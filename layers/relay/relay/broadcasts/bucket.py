"""The stack's bucket: lists of recipients that callers put there, and snapshots of broadcasts."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from relay.messages.store import StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

READ_BYTES = 1 << 16
LINE_BYTES = 1 << 16
"""The longest line of a list; what is longer is no recipient."""


class NoSuchFileError(Exception):
    """The bucket has no such file."""


class LineTooLongError(Exception):
    """A file has a line of more than LINE_BYTES."""


class Bucket:
    """The stack's bucket; the client is made when it is first needed."""

    def __init__(self, client: "Callable[[], S3Client]", name: str) -> None:
        self._client = client
        self.name = name

    def put(self, key: str, content: object) -> None:
        """Write a value as JSON; raise StoreUnavailableError."""
        body = json.dumps(content, separators=(",", ":")).encode()
        try:
            with _Trouble():
                self._client().put_object(Bucket=self.name, Key=key, Body=body)
        except NoSuchFileError:
            raise StoreUnavailableError("the bucket is not there") from None

    def get(self, key: str) -> Any:
        """Return the value that was put there; raise StoreUnavailableError, NoSuchFileError."""
        with _Trouble():
            body = self._client().get_object(Bucket=self.name, Key=key)["Body"].read()
        return json.loads(body)

    def lines(self, key: str) -> Iterator[bytes]:
        """Yield a file's lines without their ends, never holding more than one of them.

        Raises StoreUnavailableError, NoSuchFileError, LineTooLongError.
        """
        with _Trouble():
            body = self._client().get_object(Bucket=self.name, Key=key)["Body"]
        rest = b""
        while True:
            with _Trouble():
                read = body.read(READ_BYTES)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                yield _short(line)
            _short(rest)
        if rest:
            yield rest


def _short(line: bytes) -> bytes:
    if len(line) > LINE_BYTES:
        raise LineTooLongError
    return line


class _Trouble:
    """Turns what S3 and the network do into the relay's own errors."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        match error:
            case ClientError():
                code = error.response["Error"]["Code"]
                # Without the permission to list a bucket, what is not there is denied.
                if code in ("NoSuchKey", "AccessDenied", "403", "404"):
                    raise NoSuchFileError from None
                raise StoreUnavailableError(code) from None
            case BotoCoreError() | OSError():
                raise StoreUnavailableError(type(error).__name__) from None
