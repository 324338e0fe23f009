"""Exit statuses of commands. 0 is: done."""

from typing import Final

# Refused by the server, or the input could not be read, or the output not written.
REFUSED: Final = 1
# Wrong arguments.
USAGE: Final = 2
# There is nothing: no such job, no job to dequeue, not finished by then.
NOTHING: Final = 3
# The server could not be reached, or its answer was lost.
UNREACHABLE: Final = 4
