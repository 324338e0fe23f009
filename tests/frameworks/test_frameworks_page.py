"""Every block of docs/frameworks.md is run, by section, as its reader would: a web server and a worker."""

import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from running import PACKAGE, ROOT, until

from jobqueue.client import Client

PAGE = (ROOT / "docs" / "frameworks.md").read_text()
# The program that the page compares its first one with.
BY_HAND = Path(__file__).with_name("by_hand.py").read_text()


def section(title: str) -> str:
    """The part of the page under one heading."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)


def files(title: str) -> dict[str, str]:
    """The Python files of a section: each block begins with a comment, the path."""
    found = {}
    for block in blocks(title, "python"):
        first, rest = block.split("\n", 1)
        found[first.removeprefix("# ")] = rest
    return found


class Folder:
    """A folder in which programs run that know the address of the server."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.environment = {
            **os.environ,
            "JOBQUEUE_URL": url,
            "PYTHONPATH": f"{PACKAGE}{os.pathsep}{path}",
            "PYTHONUNBUFFERED": "1",
        }
        for name in ("JOBQUEUE_TOKEN", "DJANGO_SETTINGS_MODULE"):
            self.environment.pop(name, None)
        self._started: list[subprocess.Popen[bytes]] = []

    def write(self, title: str, change: Callable[[str], str] = str) -> None:
        for name, text in files(title).items():
            (self.path / name).parent.mkdir(exist_ok=True)
            (self.path / name).write_text(change(text))

    def run(self, line: str) -> str:
        done = subprocess.run(
            [sys.executable, *line.removeprefix("python3 ").split()],
            cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, line: str) -> None:
        with (self.path / f"log-{len(self._started)}").open("wb") as log:
            self._started.append(
                subprocess.Popen(
                    [sys.executable, *line.removeprefix("python3 ").split()],
                    cwd=self.path,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                )
            )

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.path.glob("log-*")))

    def fetch(
        self, url: str, body: str | None = None, kind: str = "application/x-www-form-urlencoded"
    ) -> str:
        """Asks a web server that may be about to start."""
        asked = Request(url, None if body is None else body.encode(), {"Content-Type": kind})
        end = time.monotonic() + 60
        while True:
            try:
                with urlopen(asked, timeout=30) as answer:
                    return answer.read().decode()
            except URLError as error:
                dead = [process.args for process in self._started if process.poll() is not None]
                if hasattr(error, "code") or dead or time.monotonic() > end:
                    raise AssertionError(f"{url}: {error}; ended: {dead}\n{self.log()}") from error
                time.sleep(0.05)

    def close(self) -> None:
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait(60)


@pytest.fixture
def folder(tmp_path: Path, served) -> Iterator[Folder]:
    made = Folder(tmp_path, served.url)
    yield made
    made.close()


def finished(client: Client, queue: str) -> str:
    """Waits for the only job of a queue, and returns its status."""
    [job] = client.jobs.iterate(queue=queue)
    return client.jobs.get(job.id, wait=30).status


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def test_taskiq(folder, served):
    pytest.importorskip("taskiq", reason="taskiq is not installed")
    folder.write("taskiq")
    worker, sending = blocks("taskiq", "sh")[0].splitlines()
    folder.start(worker)
    folder.run(sending)
    assert finished(served.client, "parcels") == "concluded"
    until(lambda: "packed 3" in folder.log())


def test_opentelemetry(folder, served):
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    folder.write("OpenTelemetry")
    folder.start("-m jobqueue work traced:jobs -q traced")
    served.client.jobs.enqueue("add", {"a": 1, "b": 2}, queue="traced")
    assert finished(served.client, "traced") == "concluded"
    until(lambda: '"name": "process traced"' in folder.log())


def test_sentry(folder, served):
    pytest.importorskip("sentry_sdk", reason="sentry-sdk is not installed")
    folder.write("Sentry")
    folder.start("-m jobqueue work watched:jobs -q watched")
    served.client.jobs.enqueue("divide", {"a": 1, "b": 0}, queue="watched", max_attempts=1)
    assert finished(served.client, "watched") == "dead"


def test_django(folder, served):
    pytest.importorskip("django", reason="django is not installed")
    if find_spec("django.tasks") is None and find_spec("django_tasks") is None:
        pytest.skip("neither Django 6 nor django-tasks is installed")
    api = "django.tasks" if find_spec("django.tasks") is not None else "django_tasks"
    folder.run("-m django startproject mysite .")
    settings = (folder.path / "mysite" / "settings.py").read_text()
    folder.write("Django", lambda text: text.replace("django.tasks", api))
    nowhere = "django.core.mail.backends.dummy.EmailBackend"
    new = "MAILERS" in settings  # since Django 6.1
    more = (
        f'MAILERS = {{"default": {{"BACKEND": "{nowhere}"}}}}\n' if new else f'EMAIL_BACKEND = "{nowhere}"\n'
    )
    more += "" if api == "django.tasks" else 'INSTALLED_APPS.append("django_tasks")\n'
    with (folder.path / "mysite" / "settings.py").open("r+") as file:
        block = file.read()
        file.seek(0)
        file.write(settings + block + more)
    [worker] = blocks("Django", "sh")
    port = free_port()
    folder.start(worker)
    folder.start(f"manage.py runserver --noreload {port}")
    base = f"http://127.0.0.1:{port}"
    assert folder.fetch(f"{base}/sign-up", "email=ada@example.com").startswith('{"task": ')
    assert finished(served.client, "mail") == "concluded"
    [job] = served.client.jobs.iterate(queue="mail")
    assert folder.fetch(f"{base}/tasks/{job.id}") == '{"status": "SUCCESSFUL", "mails": 1}'


class _Mails(socketserver.StreamRequestHandler):
    """Takes mails by SMTP, as far as `smtplib` needs it."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        in_data = False
        for line in self.rfile:
            if in_data and line != b".\r\n":
                self.server.mails.append(line.decode().rstrip())
                continue
            command = line[:4].upper()
            ends, in_data = in_data, command == b"DATA"
            self.wfile.write(
                b"354 go on\r\n" if in_data else b"221 bye\r\n" if command == b"QUIT" else b"250 ok\r\n"
            )
            if command == b"QUIT" and not ends:
                return


@pytest.fixture
def smtp() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mails) as server:
        server.mails = []
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def lines_of_code(text: str) -> int:
    return len([line for line in text.splitlines() if line.strip()])


@pytest.mark.parametrize("program", ["on the page", "by hand"])
def test_flask(folder, served, smtp, program):
    pytest.importorskip("flask", reason="flask is not installed")
    folder.write("Flask")
    serve, work = blocks("Flask", "sh")[0].splitlines()
    if program == "by hand":
        (folder.path / "app.py").write_text(BY_HAND)
        work = "app.py"
    folder.environment["SMTP"] = f"127.0.0.1:{smtp.server_address[1]}"
    port = free_port()
    folder.start(serve.replace("8000", str(port)))
    folder.start(work)
    answer = json.loads(folder.fetch(f"http://127.0.0.1:{port}/sign-up", "email=ada@example.com"))
    assert served.client.jobs.get(answer["job"], wait=30).status == "concluded", folder.log()
    assert "To: ada@example.com" in smtp.mails
    assert "Hello!" in smtp.mails


def test_the_lines_of_a_view_that_mails_are_those_on_the_page():
    after, before = lines_of_code(files("Flask")["app.py"]), lines_of_code(BY_HAND.partition('"""\n')[2])
    assert f"That is {after} lines of code." in section("Flask")
    assert f"is {before} lines: `tests/frameworks/by_hand.py`" in " ".join(section("Flask").split())


def test_fastapi(folder):
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    folder.write("FastAPI")
    port = free_port()
    folder.start(blocks("FastAPI", "sh")[0].strip().replace("8000", str(port)))
    answer = folder.fetch(f"http://127.0.0.1:{port}/thumbs", '{"name":"cat.jpg"}', "application/json")
    assert json.loads(answer) == {"thumb": "cat.jpg at 100"}


def test_starlette(folder):
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    folder.write("Starlette")
    serve, work = blocks("Starlette", "sh")[0].splitlines()
    port = free_port()
    folder.start(serve.replace("8000", str(port)))
    folder.start(work)
    base = f"http://127.0.0.1:{port}/reports"
    job = json.loads(folder.fetch(f"{base}?month=May", ""))["job"]
    answer = {"status": "in_progress"}
    while answer["status"] in ("queued", "in_progress"):
        answer = json.loads(folder.fetch(f"{base}/{job}"))
    assert (answer["status"], answer["result"]) == ("concluded", "report of May")
