"""Runs a command as long as its parent process lives, and leaves nothing half-made if that ends first.

    python scripts/beside.py PARENT FOLDER -- COMMAND...

PARENT is the id of the process that started this one. `scripts/compile.sh` starts it just before it becomes
the server, so the parent is the server. However that ends, the command gets a TERM, and a KILL two seconds
later, with all that it has started. Then the folder `FOLDER.ID` is removed, where ID is that of the command.
"""

import os
import shutil
import signal
import subprocess
import sys
import time

_LOOK_EVERY = 0.25
_PATIENCE = 2.0


def main(arguments: list[str]) -> int:
    at = arguments.index("--")
    parent, folder, command = int(arguments[0]), arguments[1], arguments[at + 1 :]
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # what the parent ignores is inherited
    # A session of its own, so that the signals of a terminal are for the server, and all of it can be ended.
    running = subprocess.Popen(command, start_new_session=True)
    while running.poll() is None:
        if stopping or os.getppid() != parent:
            _end(running)
            shutil.rmtree(f"{folder}.{running.pid}", ignore_errors=True)
            return 1
        time.sleep(_LOOK_EVERY)
    return running.returncode


def _end(running: "subprocess.Popen[bytes]") -> None:
    for number, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(running.pid, number)
        except ProcessLookupError:
            break
        until = time.monotonic() + patience
        while running.poll() is None and time.monotonic() < until:
            time.sleep(_LOOK_EVERY)
    running.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
