"""Copy a function's log to a file while it is being written.

MiniStack keeps logs in memory, and only those of finished invocations. Python imports this module
when it starts with this folder on PYTHONPATH, as MiniStack's function processes do, so the file is
always up to date and has even the last lines before a crash.
"""

import io
import os
import sys


class _Copy(io.RawIOBase):
    """Writes to the file and to standard error."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override] # Buffer has a name only from Python 3.12 on
        os.write(self._file, data)
        return os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, data)


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Copy(os.environ["FUNCTIONS_LOG"])),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
