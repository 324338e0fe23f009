"""Debian's own cron as the oracle: it runs under a clock of its own (faketime), and must start the same commands
in the same minutes as the calendar finds for them.

Each expression gives a window of three minutes around one of its instants. In every window cron has all 50
expressions, so that it also shows what is *not* due. It runs in a mount namespace, where it sees no other
crontab, and writes nothing outside.
"""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from jobqueue.engine.calendar import PlanCalendar
from jobqueue.model import JobTemplate, Plan

CRONS = [
    "* * * * *", "*/2 * * * *", "*/7 * * * *", "*/13 * * * *", "0 * * * *", "59 * * * *", "5-10 * * * *",
    "0-59/20 * * * *", "3-50/9 * * * *", "1,4,17,58 * * * *", "10-20/5,40 * * * *", "0 0 * * *",
    "30 2 * * *", "59 23 * * *", "0 */3 * * *", "15 */5 * * *", "*/15 9-17 * * *", "0 8-18/2 * * *",
    "20 1,13 * * *", "*/30 0,12 * * *", "0 12 1 * *", "0 0 31 * *", "30 6 29 2 *", "0 9 */10 * *",
    "45 7 1-7 * *", "5 5 15,30 * *", "0 3 1 */3 *", "0 0 1 1 *", "12 12 12 12 *", "0 4 * 2,7 *",
    "0 4 * JAN,JUN *", "10 10 * 3-5 *", "0 22 * * 1-5", "0 6 * * 0", "0 6 * * 7", "30 18 * * SUN",
    "0 7 * * MON-FRI", "15 8 * * mon,wed,fri", "0 1 * * 6,0", "*/20 3 * * 2", "0 0 * * 1-5/2",
    "0 0 13 * 5", "0 0 1,15 * 3", "30 4 1-7 * SAT", "0 9 */2 * 1", "0 0 1-7 * */7", "20 20 * * */2",
    "0 0 */5 * */3", "17 3 10-20/3 6-8 *", "0 5 31 1,3,5 SUN",
]  # fmt: skip
SPEED = 60  # seconds of cron's clock in one of the machine's
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
# As root in a namespace of its own, in which it leaves nothing behind.
OUTSIDE = 'mount -t tmpfs tmpfs /dev/shm; exec faketime -f "$2" sh -c "$3" sh "$1"'
# With cron's clock. The variables let its commands see it, too.
INSIDE = r"""
set -eu
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/spool
[ ! -d /etc/cron.d ] || mount -t tmpfs tmpfs /etc/cron.d
[ ! -f /etc/crontab ] || mount --bind /dev/null /etc/crontab
mkdir -p /var/spool/cron/crontabs
for name in LD_PRELOAD FAKETIME FAKETIME_SHARED FAKETIME_DONT_RESET TZ; do
    eval "printf '%s=%s\n' $name \"\$$name\""
done >/var/spool/cron/crontabs/root
cat "$1/crontab" >>/var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
exec cron -f
"""
MARK = '#!/bin/sh\necho "$1 $(date +%Y-%m-%dT%H:%M)" >>"$(dirname "$0")/marks"\n'


def missing():
    """Says what the test needs and is not here; None: nothing."""
    for program, package in (("cron", "cron"), ("faketime", "faketime"), ("unshare", "util-linux")):
        if shutil.which(program, path=PATH) is None:
            return f"{program} is not installed; on Debian: apt install {package}"
    if sys.platform != "linux" or os.geteuid() != 0:
        return "cron needs root"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        return "a mount namespace needs the right CAP_SYS_ADMIN"
    return None


REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")


def after(cron, instant):
    """The first instant of the calendar that is not before `instant`."""
    plan = Plan("n", JobTemplate("t"), cron=cron)
    found = PlanCalendar().next_after(plan, int(instant.timestamp() * 1000) - 1)
    return datetime.fromtimestamp(found / 1000, UTC)


def windows():
    """The middle minute of each window: of each expression an instant of another part of three years."""
    for number, cron in enumerate(CRONS):
        yield after(cron, datetime(2026, 1, 1, 7, 7, tzinfo=UTC) + timedelta(days=22 * number))


def run_cron(folder, middle, speed):
    """Returns which expressions cron started in which minute, by number, and the three minutes."""
    folder.mkdir()
    (folder / "mark").write_text(MARK)
    (folder / "mark").chmod(0o755)
    lines = [f"{cron} {folder}/mark {number}\n" for number, cron in enumerate(CRONS)]
    (folder / "crontab").write_text("".join(lines))
    begin = middle - timedelta(seconds=90)
    environment = {"PATH": PATH, "TZ": "UTC", "FAKETIME_DONT_RESET": "1"}
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", OUTSIDE, "sh", str(folder),
         f"@{begin:%Y-%m-%d %H:%M:%S} x{speed}", INSIDE],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=185 / speed)  # to 35 s after the third minute began
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # faketime, and cron, which it waits for
        process.communicate()
    else:
        raise AssertionError(f"cron ended: {said.decode()}")
    marks = (folder / "marks").read_text().split("\n") if (folder / "marks").exists() else []
    found = {}
    for line in marks:
        if line:
            number, minute = line.split(" ")
            at = datetime.fromisoformat(minute).replace(tzinfo=UTC)
            found.setdefault(int(number), set()).add(at)
    return found


def test_debians_cron_starts_the_same_expressions_in_the_same_minutes(tmp_path):
    assert len(CRONS) == len(set(CRONS)) == 50
    middles = list(windows())
    if "TEST_ALL" not in os.environ:
        middles = middles[::8]

    def compared(number):
        middle = middles[number]
        minutes = [middle + timedelta(minutes=each) for each in (-1, 0, 1)]
        for attempt, speed in enumerate((SPEED, SPEED // 3)):
            found = run_cron(tmp_path / f"{number}-{attempt}", middle, speed)
            if found.get(0, set()) >= set(minutes):  # otherwise the machine was too slow
                break
        wrong = []
        for index, cron in enumerate(CRONS):
            expected = {minute for minute in minutes if after(cron, minute) == minute}
            started = found.get(index, set()) & set(minutes)
            if started != expected:
                wrong.append((cron, f"{middle:%Y-%m-%dT%H:%M}", sorted(started), sorted(expected)))
        return wrong

    with ThreadPoolExecutor(6) as pool:
        assert [wrong for each in pool.map(compared, range(len(middles))) for wrong in each] == []
