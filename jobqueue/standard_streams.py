"""Standard input, output and error of a program that may have been started without them."""

import os
import sys
from contextlib import suppress


def open_closed_streams() -> None:
    """Opens what the caller has closed of standard input, output and error, in such a way that its use fails.

    Otherwise the next file or socket would get that number, and what is printed would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 0 else os.O_RDONLY)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (open until the exit)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def complain(text: str) -> None:
    """Writes a line to standard error. If that fails the exit status still tells what happened."""
    with suppress(OSError):
        os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))
