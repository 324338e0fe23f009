"""`python -m jobqueue journal verify|repair|dump|backup FILE`: maintains the journal in `JOBQUEUE_DATA`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from jobqueue.engine.api import Engine
from jobqueue.errors import SettingError
from jobqueue.settings import Settings
from jobqueue.storage.maintenance import Findings, back_up, jobs_in, repair, verify
from jobqueue.storage.store import JournalError
from jobqueue.web.writers.encoder import Renderer

USAGE = """usage: JOBQUEUE_DATA=FOLDER ./scripts/run.sh journal COMMAND
  verify       read everything and report what is damaged; the server may be running
  repair       save what can be read into a new file and report what is lost; stop the server first
  backup FILE  write a verified copy as of now; the server may be running
  dump         print all jobs, one a line, as GET /jobs/{id} shows them"""


class _WallTime:
    """Stands in for an engine in the encoder: in the journal, lease ends are wall-clock times already, and a
    dump does not export."""

    identity = ""

    @staticmethod
    def wall(instant: int) -> int:
        return instant


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Runs the command in `arguments`. Returns the exit status: 0 all is well, 1 the journal is damaged or
    cannot be read, 2 the arguments or settings are wrong."""
    command, rest = (arguments or ["help"])[0], arguments[1:]
    if command not in ("verify", "repair", "backup", "dump") or len(rest) != (command == "backup"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        data = Settings.from_environment(environ).data
        if data is None:
            raise SettingError("set JOBQUEUE_DATA to the folder of the journal")
        folder = Path(data)
        if command == "dump":
            return _dump(folder)
        if command == "backup":
            return _report(back_up(folder, Path(rest[0])), "copied")
        return _report(repair(data), "kept") if command == "repair" else _report(verify(folder), "whole")
    except SettingError as bad:
        print(f"jobqueue: {bad.detail}", file=sys.stderr)
        return 2
    except JournalError as bad:
        print(f"jobqueue: {bad.detail}", file=sys.stderr)
        return 1


def _report(found: Findings, good: str) -> int:
    """Prints what is wrong and how much was found. `good` describes the counts; what is damaged is not
    whole, only readable."""
    for line in found.wrong:
        print(line)
    word = "readable" if found.wrong and good == "whole" else good
    print(
        f"{word}: jobs {found.jobs:,}, queues with settings or a pause {found.queues:,}, "
        f"idempotency keys {found.keys:,}"
    )
    return 1 if found.wrong else 0


def _dump(folder: Path) -> int:
    renderer = Renderer(cast(Engine, _WallTime()))
    for job in jobs_in(folder):
        sys.stdout.buffer.write(renderer.whole_job(job))
    sys.stdout.buffer.flush()
    return 0
