#!/usr/bin/env python3
"""The worker of jobqueue 0.0.0: takes jobs and runs a command for each. Needs Python 3.8, and nothing else.

    curl -sSf http://localhost:8080/worker.py | python3 - thumbs -- ./make_thumb

The command gets the payload on its standard input, and JOB_ID JOB_QUEUE JOB_TYPE JOB_PRIORITY JOB_ATTEMPTS
JOB_LEASE JOB_LEASE_FOR JOB_LEASE_EXPIRES_AT JOB_CONTENT_TYPE JOB_URL in its environment. Its exit status
says how it went: 0 concludes the job, what it wrote is the result; 75 gives it back for a while; all else
fails it, with the end of what it wrote to standard error. Meanwhile the lease is kept up. A command whose job
was cancelled, or whose lease is lost, gets a TERM, and a KILL five seconds later.

TERM, INT or HUP: takes no more, and lets the command end; after -g seconds, or at a second signal, stops the
command and gives the job back.

The queue is at $JOBQUEUE_URL (http://localhost:8080); $JOBQUEUE_TOKEN is the access token, if it wants one.
"""

from __future__ import annotations  # for Python 3.8

import argparse
import contextlib
import http.client
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

VERSION = "0.0.0"
ADDRESS = os.environ.get("JOBQUEUE_URL") or "http://localhost:8080"
# Of an answer: nobody there, or not now.
AGAIN = (0, 408, 429)
GONE = (403, 404, 409, 410)
PATIENCE = 60  # seconds: a server may ask for so long a rest
_TOLD = (
    ("JOB_ID", "job-id"), ("JOB_QUEUE", "job-queue"), ("JOB_TYPE", "job-type"),
    ("JOB_PRIORITY", "job-priority"), ("JOB_ATTEMPTS", "job-attempts"), ("JOB_LEASE", "job-lease"),
    ("JOB_LEASE_FOR", "job-lease-for"), ("JOB_LEASE_EXPIRES_AT", "job-lease-expires-at"),
    ("JOB_CONTENT_TYPE", "content-type"),
)  # fmt: skip


class Answer(NamedTuple):
    """`status` 0: there is none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def later(self) -> bool:
        return self.status in AGAIN or self.status >= 500

    @property
    def is_job(self) -> bool:
        return self.status == 200 and "job-id" in self.headers


class Options(NamedTuple):
    queues: str
    command: list[str]
    wait: int
    lease_for: int | None
    rest: int
    grace: float
    name: str
    type: str
    once: bool
    verbose: bool


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it has gone
        sys.stderr.write(f"worker: {text}\n")
        sys.stderr.flush()


class Slot(threading.Thread):
    """Takes and works on one job after the other. `stopping`: takes no more; `at_once`: ends what it has."""

    def __init__(self, number: int, options: Options, stopping: threading.Event) -> None:
        super().__init__(name=f"{options.name}-{number}")
        self.options = options
        self.stopping = stopping
        self.at_once = False
        self.stopped_at: float | None = None
        self.refused = False
        self._over = False  # no job came, and that is all that was wanted
        self._delay = 1.0
        self._connection: http.client.HTTPConnection | None = None
        self._waiting = False
        wanted = {"raw": "1", "queues": options.queues, "wait": str(options.wait)}
        if options.lease_for is not None:
            wanted["lease_for"] = str(options.lease_for)
        self._wanted = urlencode(wanted)

    def run(self) -> None:
        while not (self._over or self.stopping.is_set()):
            job = self._take()
            while job is not None:
                if self.stopping.is_set():
                    self._release(job, 0)
                    break
                job = self._work(job)

    def interrupt(self) -> None:
        """Ends a wait for a job, from another thread. A job that is on its way is heard all the same."""
        connection = self._connection
        if self._waiting and connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_WR)  # TLS's own would also end hearing

    # -- asking ---------------------------------------------------------------------------------------

    def _ask(self, path: str, body: bytes = b"", lease: str = "", kind: str = "text/plain") -> Answer:
        headers = {"Queue-Consumer": self.name, "Content-Type": kind}
        if lease:
            headers["Job-Lease"] = lease
        if "JOBQUEUE_TOKEN" in os.environ:
            headers["Authorization"] = "Bearer " + os.environ["JOBQUEUE_TOKEN"]
        self._waiting = "wait=" in path
        try:
            for fresh in (self._connection is None, True):
                try:
                    if fresh:
                        self._connection = connect(self.options.wait + 15)
                    connection = self._connection
                    assert connection is not None
                    if self._waiting and self.stopping.is_set():
                        break
                    connection.request("POST", urlsplit(ADDRESS).path.rstrip("/") + path, body, headers)
                    answer = connection.getresponse()
                    said = {name.lower(): value for name, value in answer.getheaders()}
                    return Answer(answer.status, said, answer.read())
                except (OSError, http.client.HTTPException):
                    self._connection = None
                    # A kept connection may have been closed in the meantime: that was no attempt. What asks
                    # for a job may have got one: that is not asked again in silence.
                    if fresh or self._waiting:
                        break
            return Answer(0, {}, b"")
        finally:
            self._waiting = False

    def _rest(self, answer: Answer) -> None:
        """Longer each time, and not as long as others do; and as long as the server asks for."""
        if self._delay == 1:
            say(f"no answer from {ADDRESS} ({answer.status}); trying again")
        asked = answer.headers.get("retry-after", "")
        least = min(int(asked), PATIENCE) if asked.isascii() and asked.isdigit() else 0.1
        self.stopping.wait(least + random.uniform(0, self._delay))
        self._delay = min(self._delay * 2, 30.0)

    def _take(self) -> Answer | None:
        answer = self._ask(f"/jobs/dequeue?{self._wanted}")
        if answer.later:
            if not self.stopping.is_set():
                self._rest(answer)
            return None
        self._delay = 1.0
        if answer.status not in (200, 204):
            say(f"refused: {answer.body.decode(errors='replace').strip()}")
            self.refused = True
            self.stopping.set()
        self._over = answer.status == 204 and self.options.once
        return answer if answer.is_job else None

    def _tell(self, job: Answer, verb: str, body: bytes = b"", kind: str = "text/plain") -> Answer:
        """Until somebody has heard it, or it is no use."""
        path = f"/jobs/{job.headers['job-id']}/{verb}"
        answer = self._ask(path, body, job.headers["job-lease"], kind)
        for _ in range(9):
            if not answer.later:
                self._delay = 1.0
                break
            if self.stopping.is_set():
                time.sleep(0.5)
            else:
                self._rest(answer)
            answer = self._ask(path, body, job.headers["job-lease"], kind)
        return answer

    # -- one job --------------------------------------------------------------------------------------

    def _work(self, job: Answer) -> Answer | None:
        """The next job, if concluding this one brought it."""
        facts = {name: unquote(job.headers.get(header, "")) for name, header in _TOLD}
        id = job.headers["job-id"]
        environment = {**os.environ, **facts, "JOB_URL": f"{ADDRESS}/jobs/{id}", "JOBQUEUE_URL": ADDRESS}
        try:
            started = subprocess.Popen(
                self.options.command, env=environment, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as cannot:
            self._fail(job, "cannot be run", str(cannot).encode())
            return None
        with started as process:
            told, out, err = self._attend(process, job)
            status = process.returncode
        if status == 0:
            return self._conclude(job, out)
        if told == "lost":
            say(f"job {id}: its lease is lost; the command was stopped")
        elif told:
            self._release(job, 0)
        elif status == 75:
            self._release(job, self.options.rest)
        else:
            self._fail(job, f"exit {status}", err)
        return None

    def _attend(self, process: subprocess.Popen[bytes], job: Answer) -> tuple[str, bytes, bytes]:
        """Keeps the lease up until the command ends. Why it was stopped, if it was; and what it wrote."""
        every = min(max(float(job.headers.get("job-lease-for", "3")) / 3, 0.3), 60.0)
        beat_at = time.monotonic() + every
        told, kill_at = "", 0.0
        payload: bytes | None = job.body
        while True:
            try:
                out, err = process.communicate(payload, timeout=min(every, 0.5))
                return told, out, err
            except subprocess.TimeoutExpired:
                payload = None
            now = time.monotonic()
            if told:
                if now >= kill_at:
                    hit(process, signal.SIGKILL)
                if told != "lost" and now >= beat_at:  # it is given back once the command has ended
                    beat_at = now + every
                    self._heartbeat(job)
                continue
            if self.at_once or (self.stopped_at is not None and now >= self.stopped_at + self.options.grace):
                told = "stopped"
            elif now >= beat_at:
                beat_at = now + every
                told = self._heartbeat(job)
            if told:
                hit(process, signal.SIGTERM)
                kill_at = now + 5

    def _heartbeat(self, job: Answer) -> str:
        answer = self._ask(f"/jobs/{job.headers['job-id']}/heartbeat", b"", job.headers["job-lease"])
        if answer.status in GONE:
            return "lost"
        # What was said of errors may hold anything.
        return "cancelled" if b'"cancel_requested":true' in answer.body.partition(b'"error":')[0] else ""

    # -- how it went ----------------------------------------------------------------------------------

    def _conclude(self, job: Answer, out: bytes) -> Answer | None:
        """Where more is wanted the same request waits for the next job."""
        id, kind = job.headers["job-id"], self.options.type
        answer = Answer(0, {}, b"")
        if not self.stopping.is_set():
            path = f"/jobs/{id}/conclude?next=1&{self._wanted}"
            answer = self._ask(path, out, job.headers["job-lease"], kind)
            self._over = answer.status == 204 and self.options.once
        if answer.later:  # it was heard, or not: said twice it is the same
            answer = self._tell(job, "conclude?raw=1", out, kind)
        if answer.status in (200, 204):
            self._note(job, "concluded")
        elif answer.later or answer.status in (401, *GONE):
            self._not_told(job, "concluded", answer)
        else:
            self._fail(job, f"the result was refused ({answer.status})", answer.body)
        return answer if answer.is_job else None

    def _release(self, job: Answer, delay: int) -> None:
        answer = self._tell(job, f"release?delay={delay}")
        (self._note if answer.status == 200 else self._not_told)(job, "given back", answer)

    def _fail(self, job: Answer, why: str, said: bytes) -> None:
        lines = said.decode(errors="replace").strip().splitlines()
        say(f"job {job.headers['job-id']}: {why}: {lines[-1] if lines else ''}")
        answer = self._tell(job, "fail?raw=1", why.encode() + b"\n" + said[-4000:])
        (self._note if answer.status == 200 else self._not_told)(job, "failed", answer)

    def _note(self, job: Answer, what: str, answer: Answer | None = None) -> None:
        if self.options.verbose:
            say(f"job {job.headers['job-id']}: {what}")

    def _not_told(self, job: Answer, what: str, answer: Answer) -> None:
        id = job.headers["job-id"]
        say(f"job {id}: could not be {what} ({answer.status}); it goes back when its lease is over")


def hit(process: subprocess.Popen[bytes], number: int) -> None:
    """The command, and what it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


def connect(timeout: float) -> http.client.HTTPConnection:
    url = urlsplit(ADDRESS)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    return kind(url.hostname or "localhost", url.port, timeout=timeout)


def main() -> int:
    about = argparse.ArgumentParser(
        prog="worker.py", usage="worker.py [options] QUEUE[,QUEUE...] [--] COMMAND [ARGUMENT...]",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = about.add_argument
    add("-j", type=int, default=1, metavar="N", help="so many jobs at once (1)")
    add("-w", type=int, default=30, metavar="SECONDS", help="longest wait for a job in one request (30)")
    add("-l", type=int, metavar="SECONDS", help="length of a lease (the job's, else the queue's)")
    add("-d", type=int, default=10, metavar="SECONDS", help="rest of a job whose command exits with 75 (10)")
    add("-g", type=float, default=8, metavar="SECONDS", help="a command may run on after a signal (8)")
    add("-n", metavar="NAME", default=f"{socket.gethostname()}-{os.getpid()}", help="the consumer's name")
    add("-t", metavar="TYPE", default="text/plain", help="media type of what the command writes (text/plain)")
    add("-o", action="store_true", help="ends when no job comes")
    add("-v", action="store_true", help="says what becomes of each job")
    add("-V", action="version", version=f"jobqueue worker {VERSION}")
    add("queues", metavar="QUEUE[,QUEUE...]")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    given = about.parse_args()
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command or shutil.which(command[0]) is None:
        about.error(f"there is no command {command[0]}" if command else "which command?")
    if not re.fullmatch(r"[A-Za-z0-9_.:,-]+", given.queues):
        about.error(f"this names no queue: {given.queues}")
    if given.j < 1:
        about.error("-j: 1 or more")
    options = Options(
        given.queues, command, given.w, given.l, given.d, given.g, given.n, given.t, given.o, given.v
    )
    stopping = threading.Event()
    slots = [Slot(number, options, stopping) for number in range(1, given.j + 1)]

    def stop(number: int, frame: object) -> None:
        for slot in slots:
            slot.at_once = slot.stopped_at is not None
            slot.stopped_at = time.monotonic()
        stopping.set()
        for slot in slots:
            slot.interrupt()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    for slot in slots:
        slot.start()
    for slot in slots:
        while slot.is_alive():
            slot.join(0.2)
            if stopping.is_set():  # it may have begun to wait since
                slot.interrupt()
    return int(any(slot.refused for slot in slots))


if __name__ == "__main__":
    sys.exit(main())
