"""Copy what a function logs into a file, as it is written.

MiniStack keeps a function's log in memory and only once the invocation has ended. Python imports
this module at start-up wherever its folder is on PYTHONPATH, as it is for MiniStack's function
processes: so the file is complete and live, a crash's last words included.
"""

import io
import os
import sys


class _Copy(io.RawIOBase):
    """Writes to standard error and to the file."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override] # the buffer protocol has a name from Python 3.12 on
        os.write(self._file, data)
        return os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, data)


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Copy(os.environ["FUNCTIONS_LOG"])),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
