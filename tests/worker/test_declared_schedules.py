"""`@jobs.cron` and `@jobs.every`: what they declare, what is sent, and what runs."""

import asyncio
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_python_page import environment

from jobqueue import Context, Jobs
from jobqueue.testing import ManualClock, inline

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
ran = []


def shop():
    jobs = Jobs("http://127.0.0.1:9")

    @jobs.cron("30 2 * * *", timezone="Europe/Berlin", overlap="skip")
    def report(ctx: Context, full: bool = False) -> None:
        ran.append((ctx.headers["schedule"], full))

    @jobs.cron("0 8 * * MON", name="weekly", arguments={"kind": "weekly"})
    @jobs.every("1h", name="hourly", arguments={"kind": "hourly"}, grace="10m")
    @jobs.job("mail.send", queue="mail", max_attempts=5)
    def send_mail(kind: str) -> None:
        ran.append(kind)

    return jobs, report, send_mail


def test_a_schedule_is_declared_at_a_function_or_a_job():
    jobs, _, send_mail = shop()
    assert list(jobs.types) == ["report", "mail.send"]
    assert list(jobs.schedules) == ["report", "hourly", "weekly"]
    new = jobs.schedules["hourly"].new()
    assert (new.name, new.options, new.job.type, new.job.payload, new.job.options) == (
        "hourly", {"every": "1h", "grace": "10m"}, "mail.send", {"kind": "hourly"},
        {"queue": "mail", "max_attempts": 5},
    )  # fmt: skip
    send_mail("now")
    assert ran.pop() == "now"


def test_declared_schedules_run_their_jobs_by_the_clock():
    jobs, *_ = shop()
    ran.clear()
    with inline(jobs, clock=ManualClock(datetime(2027, 1, 15, 8, 20, tzinfo=UTC))) as t:
        changes = jobs.sync_schedules(group="shop", dry_run=True)
        assert (changes.created, jobs.client.schedules.list().schedules) == (
            ["report", "hourly", "weekly"],
            [],
        )
        assert jobs.sync_schedules(group="shop") == changes
        assert asyncio.run(jobs.async_schedules(group="shop")).unchanged == changes.created
        t.advance("1h")
        t.run_all()
        assert ran == ["hourly"]
        jobs.client.schedules.put("often", "report", every=600, overlap="allow", grace="1s")
        t.advance("24h")  # each instant on the way comes due at its time
        t.run_all()
        assert ran.count("hourly") == 2  # the second one waited, and `overlap` skipped the others
        assert ran.count(("report", False)) == 1
        assert ran.count(("often", False)) == 144


def test_what_does_not_fit_is_refused_where_it_is_declared():
    jobs, report, _ = shop()
    with pytest.raises(TypeError, match="did you mean timezone"):
        jobs.cron("* * * * *", timezon="UTC")
    with pytest.raises(ValueError, match="there is a schedule 'report' already"):
        jobs.cron("* * * * *")(report)
    with pytest.raises(TypeError):
        jobs.every(60, name="other", arguments={"fool": 1})(report)
    with pytest.raises(ValueError, match="there is a job 'report' already"):
        jobs.cron("* * * * *", name="third")(report.function)


def test_every_block_of_python_on_the_page_runs(url, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for code in blocks:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(url, tmp_path), cwd=tmp_path,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
