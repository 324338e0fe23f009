"""`python -m jobqueue journal verify|repair|dump|backup FILE`: looks after the journal in `JOBQUEUE_DATA`."""

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

USAGE = """usage: JOBQUEUE_DATA=FOLDER ./scripts/run.sh journal …
  verify       reads everything and says what is wrong; a running server does not mind
  repair       saves what can be read into a new file, and says what is gone; stop the server first
  backup FILE  a copy as of this moment, verified; a running server does not mind
  dump         all jobs, one a line, as GET /jobs/{id} shows them"""


class _WallTime:
    """For a renderer: the ends of leases are wall-clock instants already, and nothing is exported."""

    identity = ""

    @staticmethod
    def wall(instant: int) -> int:
        return instant


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """The exit status: 0 all is well, 1 something is wrong or gone, 2 it was asked wrongly."""
    what, rest = (arguments or ["help"])[0], arguments[1:]
    if what not in ("verify", "repair", "backup", "dump") or len(rest) != (what == "backup"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        data = Settings.from_environment(environ).data
        if data is None:
            raise SettingError("set JOBQUEUE_DATA to the folder of the journal")
        folder = Path(data)
        if what == "dump":
            return _dump(folder)
        if what == "backup":
            return _say(back_up(folder, Path(rest[0])), "copied")
        return _say(repair(data), "kept") if what == "repair" else _say(verify(folder), "whole")
    except SettingError as bad:
        print(f"jobqueue: {bad.detail}", file=sys.stderr)
        return 2
    except JournalError as bad:
        print(f"jobqueue: {bad.detail}", file=sys.stderr)
        return 1


def _say(found: Findings, good: str) -> int:
    """`good`: what is so of what was counted; that it is whole only if nothing is wrong."""
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
