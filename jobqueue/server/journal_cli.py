"""`jobqueue journal verify|repair|dump|backup FILE`: maintains the journal in `JOBQUEUE_DATA`."""

import sys
from collections.abc import Mapping
from pathlib import Path

from jobqueue.errors import SettingError
from jobqueue.settings import Settings, is_database
from jobqueue.standard_streams import complain
from jobqueue.storage.maintenance import Findings, back_up, jobs_in, repair, schedules_in, verify
from jobqueue.storage.store import JournalError
from jobqueue.web.writers import schedules
from jobqueue.web.writers.encoder import Encoder, document

USAGE = """usage: jobqueue journal COMMAND --data FOLDER
  verify       read everything and report what is damaged; the server may be running
  repair       save what can be read into a new file and report what is lost; stop the server first
  backup FILE  write a verified copy as of now; the server may be running
  dump         print all jobs, one a line, as GET /jobs/{id} shows them
  dump schedules
               print all schedules, one a line, as GET /schedules shows them"""

# What replaces each command.
_WITH_POSTGRES = {
    "verify": "the server verifies each row when it starts; `pg_amcheck DATABASE` checks the files",
    "repair": "restore a backup with `pg_restore`; the server names the row that is damaged",
    "backup": "`pg_dump --format=custom --schema=jobqueue --file=FILE URL`, also while the server runs",
    "dump": "GET /jobs and GET /schedules list all, and `jobqueue export QUEUE` writes the jobs of a queue",
}


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Runs the command in `arguments`. Returns the exit status: 0 all is well, 1 the journal is damaged or
    cannot be read, 2 the arguments or settings are wrong."""
    command, rest = (arguments or ["help"])[0], arguments[1:]
    takes_file, of_schedules = command == "backup", (command, *rest) == ("dump", "schedules")
    if command not in ("verify", "repair", "backup", "dump") or (
        len(rest) != takes_file and not of_schedules
    ):
        complain(USAGE)
        return 2
    try:
        data = Settings.from_environment(environ).data
        if data is None:
            raise SettingError("give --data, or set JOBQUEUE_DATA, to the folder of the journal")
        if is_database(data):
            complain(
                f"`journal {command}` is for a journal on disk. With PostgreSQL: {_WITH_POSTGRES[command]}"
            )
            return 2
        folder = Path(data)
        if command == "dump":
            return _dump_schedules(folder) if of_schedules else _dump(folder)
        if command == "backup":
            return _report(back_up(folder, Path(rest[0])), "copied")
        return _report(repair(data), "kept") if command == "repair" else _report(verify(folder), "whole")
    except SettingError as bad:
        complain(f"jobqueue: {bad.detail}")
        return 2
    except JournalError as bad:
        complain(f"jobqueue: {bad.detail}")
        return 1


def _report(found: Findings, good: str) -> int:
    """Prints what is wrong and how much was found. `good` describes the counts; what is damaged is not
    whole, only readable."""
    for line in found.wrong:
        print(line)
    word = "readable" if found.wrong and good == "whole" else good
    print(
        f"{word}: jobs {found.jobs:,}, queues with settings or a pause {found.queues:,}, "
        f"idempotency keys {found.keys:,}" + (f", schedules {found.schedules:,}" if found.schedules else "")
    )
    return 1 if found.wrong else 0


def _dump(folder: Path) -> int:
    # In the journal, lease ends are wall-clock times already.
    encoder = Encoder(lambda at: at, "", Settings().max_payload_text)
    for job in jobs_in(folder):
        sys.stdout.buffer.write(encoder.whole_job(job))
    sys.stdout.buffer.flush()
    return 0


def _dump_schedules(folder: Path) -> int:
    for schedule in schedules_in(folder):
        sys.stdout.buffer.write(document(schedules.view(schedule, "", None, Settings().max_payload_text)))
    sys.stdout.buffer.flush()
    return 0
