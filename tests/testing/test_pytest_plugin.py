"""The fixtures of `jobqueue.testing.pytest_plugin`, in projects of their own that pytest runs."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import jobqueue

pytest_plugins = ["pytester"]

PACKAGE = Path(jobqueue.__file__).parents[1]
PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
Run = Callable[..., pytest.RunResult]

SHOP = """
import asyncio
import msgspec
from typing import Literal
from jobqueue import Context, Jobs, Retry

jobs = Jobs()

class Address(msgspec.Struct):
    email: str
    name: str = ""

def greylisted(to):
    from jobqueue import current
    return to.email.startswith("flaky") and current().attempt == 1

@jobs.job
def add(a: int, b: int) -> int:
    return a + b

@jobs.job("mail.send", queue="mail", max_attempts=5, backoff=["10s", "5m"], timeout=60)
async def send_mail(ctx: Context, to: Address, kind: Literal["welcome", "bill"] = "welcome") -> str:
    if greylisted(to):
        raise Retry(after="5m")
    return f"{kind} to {to.email}"
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs pytest in a project with `shop.py` and the tests given, with this package as an installed one."""
    info = pytester.path / "site" / "jobqueue_http-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jobqueue-http\nVersion: 0\n")
    [(name, module)] = PYPROJECT["project"]["entry-points"]["pytest11"].items()
    (info / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [PACKAGE, info.parent, pytester.path])))
    monkeypatch.setenv("JOBQUEUE_URL", "http://127.0.0.1:9")
    pytester.makepyfile(shop=SHOP)

    def run(tests: str, *options: str, **files: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=tests, **files)
        # The async plugin of our own tests warns of a newer pytest.
        return pytester.runpytest_subprocess("-W", "error", "-p", "no:tornado", "-q", *options)

    return run


def test_the_example_runs_as_it_stands(run):
    run('''
from shop import Address, send_mail

def test_mail_comes_once(jobqueue):                  # fixture: the real engine, here, with a clock in your hand
    send_mail.enqueue(Address("flaky@x.y")); jobqueue.run_all()
    assert jobqueue.jobs("mail")[0].status == "scheduled"
    jobqueue.advance("10m"); jobqueue.run_all()
    assert jobqueue.jobs("mail")[0].result == "welcome to flaky@x.y"
''').assert_outcomes(passed=1)  # fmt: skip


def test_each_test_has_a_queue_of_its_own_also_for_modules_imported_in_it(run):
    run('''
def test_first(jobqueue):
    from shop import add, jobs
    add.enqueue(1, 2)
    assert jobs.client is jobqueue.client
    assert len(jobqueue.jobs()) == 1

def test_second(jobqueue):
    from shop import add
    assert jobqueue.jobs() == []
    assert add.enqueue(1, 2).result() == 3

def test_without():
    from shop import jobs
    assert jobs.client.url == "http://127.0.0.1:9"
    assert jobs.shared.hint == ""

def test_async(jobqueue):
    import asyncio
    from shop import Address, send_mail

    async def test():
        return await (await send_mail.aenqueue(Address("a@b"))).aresult()

    assert asyncio.run(test()) == "welcome to a@b"
''').assert_outcomes(passed=4)  # fmt: skip


def test_a_project_names_its_jobs_and_settings(run):
    run(
        '''
from jobqueue import Jobs
from shop import add, jobs

def test_it(jobqueue):
    assert jobs.client is jobqueue.client
    assert other.client is not jobqueue.client
    assert jobqueue.engine.settings.max_attempts == 7
    assert add.enqueue(1, 2).result() == 3

other = Jobs()
other.job("add")(add.function)
''',
        conftest='''
import pytest

@pytest.fixture
def jobqueue_jobs():
    from shop import jobs
    return jobs

@pytest.fixture
def jobqueue_settings():
    return {"max_attempts": 7}
''',
    ).assert_outcomes(passed=1)  # fmt: skip


def test_a_test_has_a_real_server(run):
    run('''
import asyncio, gc, os
import pytest
from jobqueue import Client, Worker
from shop import add, jobs

urls = set()

@pytest.mark.parametrize("times", range(2))
def test_it(jobqueue_server, times):
    urls.add(jobqueue_server.url)
    handle = add.enqueue(1, 2)
    assert Client().url == os.environ["JOBQUEUE_URL"] == jobqueue_server.url
    [job] = jobqueue_server.client.jobs.list().jobs
    assert job.id == handle.id

    async def work():
        async with Worker(jobs):
            return await handle.aresult(wait=60)

    assert asyncio.run(work()) == 3
    gc.collect()

def test_it_has_ended():
    assert len(urls) == 2
    for url in urls:
        with pytest.raises(Exception, match="refused"):
            Client(url, retry_for=0).server.health()
    assert jobs.client.url == os.environ["JOBQUEUE_URL"] == "http://127.0.0.1:9"
''').assert_outcomes(passed=3)  # fmt: skip


def test_a_server_that_does_not_start_shows_its_log(run):
    result = run(
        "def test_it(jobqueue_server): pass",
        conftest='import pytest\n@pytest.fixture\ndef jobqueue_settings(): return {"max_attempt": 7}',
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*RuntimeError: the server did not start:", "*MAX_ATTEMPT*"])


def test_a_project_that_uses_neither_loads_nothing(run):
    run('''
import sys

def test_it():
    loaded = {name for name in sys.modules if name.partition(".")[0] in ("jobqueue", "msgspec", "tornado")}
    assert not loaded & {"msgspec", "tornado"}
    assert loaded == {
        "jobqueue", "jobqueue.errors", "jobqueue.testing", "jobqueue.testing.clock",
        "jobqueue.testing.pytest_plugin", "jobqueue.testing.requirements", "jobqueue.units", "jobqueue.version",
    }
''').assert_outcomes(passed=1)  # fmt: skip


def test_without_the_server_a_fixture_says_so_in_one_line(run):
    result = run(
        "def test_it(jobqueue): pass\ndef test_server(jobqueue_server): pass\ndef test_other(): pass",
        conftest="import sys\nsys.modules['tornado'] = None",
    )
    result.assert_outcomes(errors=2, passed=1)
    said = (
        "jobqueue.testing runs the real server, and tornado is missing: pip install 'jobqueue-http?server?'"
    )
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_the_test_kit_needs_no_pytest():
    code = "import sys, jobqueue.testing.kit, jobqueue.testing.server; print('pytest' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
