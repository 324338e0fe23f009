#!/usr/bin/env python3
"""The worker of jobqueue 0.0.0: takes jobs and runs a command for each. It needs Python 3.8 and nothing else.

    curl -sSf http://localhost:8080/worker.py | python3 - thumbs -- ./make_thumb

The command gets the payload on its standard input, and JOB_ID JOB_QUEUE JOB_TYPE JOB_PRIORITY JOB_ATTEMPTS
JOB_LEASE JOB_LEASE_FOR JOB_LEASE_EXPIRES_AT JOB_CONTENT_TYPE JOB_URL in its environment. Its exit status
decides what happens to the job: 0 concludes it, with the standard output as its result; 75 releases it, to be
retried later; any other status fails it, with the end of the standard error as its error. The worker renews
the lease while the command runs. If the job is cancelled or its lease is lost, the command gets a TERM, and a
KILL five seconds later.

On TERM, INT or HUP the worker takes no more jobs and waits for the command. After -g seconds, or on a second
signal, it stops the command and releases the job.

$JOBQUEUE_URL is the address of the server (http://localhost:8080), $JOBQUEUE_TOKEN its access token, if it
requires one. Several addresses of one queue have commas between them: the worker goes on to the next one
when a server is away.
"""

from __future__ import annotations  # for Python 3.8

import argparse
import contextlib
import http.client
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlencode, urlsplit

if TYPE_CHECKING:
    import ssl  # some builds of Python have none

VERSION = "0.0.0"
ADDRESSES = os.environ.get("JOBQUEUE_URL") or "http://localhost:8080"
# Statuses after which a request is repeated (0: no answer), and those after which the lease is lost.
RETRYABLE = (0, 408, 429)
AWAY = (0, 502, 503, 504)  # after these the next request goes to the next address
GONE = (403, 404, 409, 410)
_SAYING = threading.Lock()
MAX_RETRY_AFTER = 60  # seconds: the longest Retry-After that is honoured
CLOSE_AFTER = 1.0  # seconds in which the server may end a wait, before the connection is closed
_VARIABLES = (
    ("JOB_ID", "job-id"), ("JOB_QUEUE", "job-queue"), ("JOB_TYPE", "job-type"),
    ("JOB_PRIORITY", "job-priority"), ("JOB_ATTEMPTS", "job-attempts"), ("JOB_LEASE", "job-lease"),
    ("JOB_LEASE_FOR", "job-lease-for"), ("JOB_LEASE_EXPIRES_AT", "job-lease-expires-at"),
    ("JOB_CONTENT_TYPE", "content-type"),
)  # fmt: skip


class Answer(NamedTuple):
    """An answer of the server; `status` 0 means that there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def retryable(self) -> bool:
        return self.status in RETRYABLE or self.status >= 500

    @property
    def is_job(self) -> bool:
        return self.status == 200 and "job-id" in self.headers


class Options(NamedTuple):
    queues: str
    command: list[str]
    wait: int
    lease_for: int | None
    delay: int
    grace: float
    name: str
    type: str
    once: bool
    verbose: bool
    tls: ssl.SSLContext | None


def say(text: str) -> None:
    """Writes a line to standard error. If nobody reads that, or it is closed, the line is lost: a worker that
    waited for its log would lose its lease."""
    line = f"worker: {text}".encode("utf-8", "backslashreplace")[: select.PIPE_BUF - 1] + b"\n"
    with _SAYING, contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line)


class Slot(threading.Thread):
    """A thread that takes one job after the other and runs the command for each.

    `stopping` is set when no more jobs are to be taken, `at_once` when the running command is to be stopped.
    """

    def __init__(self, number: int, options: Options, stopping: threading.Event) -> None:
        super().__init__(name=f"{options.name}-{number}")
        self.options = options
        self.stopping = stopping
        self.at_once = False
        self.stopped_at: float | None = None
        self.refused = False
        self._over = False  # no job came, and the option -o was given
        self._retry_delay = 1.0
        self._addresses = [address.strip().rstrip("/") for address in ADDRESSES.split(",")]
        self._connection: http.client.HTTPConnection | None = None
        self._waiting = False
        self._interrupted_at: float | None = None  # the wait, if it was
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
        """Ends a wait for a job, from another thread; call it again until the wait has ended.

        At first it only says that nothing more will be sent. The server then ends the wait, and a job that
        is already on its way is still received. A proxy may keep that to itself, so a moment later the
        connection is closed.
        """
        connection = self._connection
        if not self._waiting or connection is None or connection.sock is None:
            return
        now = time.monotonic()
        if self._interrupted_at is None:
            self._interrupted_at = now
            how = socket.SHUT_WR
        elif now - self._interrupted_at >= CLOSE_AFTER:
            how = socket.SHUT_RDWR
        else:
            return
        with contextlib.suppress(OSError):
            # Not `connection.sock.shutdown`: that of an SSLSocket would end reading, too.
            socket.socket.shutdown(connection.sock, how)

    # -- requests -------------------------------------------------------------------------------------

    def _ask(self, path: str, body: bytes = b"", lease: str = "", kind: str = "text/plain") -> Answer:
        """Sends a request to the first address. If that one is away, it becomes the last one."""
        answer = self._ask_first(path, body, lease, kind)
        if answer.status in AWAY and len(self._addresses) > 1 and self._interrupted_at is None:
            self._addresses.append(self._addresses.pop(0))
            self._connection = None
        return answer

    def _ask_first(self, path: str, body: bytes, lease: str, kind: str) -> Answer:
        headers = {"Queue-Consumer": self.name, "Content-Type": kind}
        if lease:
            headers["Job-Lease"] = lease
        if "JOBQUEUE_TOKEN" in os.environ:
            headers["Authorization"] = "Bearer " + os.environ["JOBQUEUE_TOKEN"]
        self._interrupted_at = None
        self._waiting = "wait=" in path
        try:
            for fresh in (self._connection is None, True):
                try:
                    if fresh:
                        patience = self.options.wait + 15
                        self._connection = connect(self._addresses[0], patience, self.options.tls)
                    connection = self._connection
                    assert connection is not None
                    if self._waiting and self.stopping.is_set():
                        break
                    connection.request("POST", urlsplit(self._addresses[0]).path + path, body, headers)
                    answer = connection.getresponse()
                    fields = {name.lower(): value for name, value in answer.getheaders()}
                    return Answer(answer.status, fields, answer.read())
                except (OSError, http.client.HTTPException):
                    self._connection = None
                    # The server may have closed a kept connection meanwhile: try again on a new one. A
                    # dequeue may already have leased a job, so it is not repeated silently.
                    if fresh or self._waiting:
                        break
            return Answer(0, {}, b"")
        finally:
            self._waiting = False

    def _back_off(self, answer: Answer) -> None:
        """Waits: exponentially longer each time, with jitter, and at least as long as Retry-After says."""
        if self._retry_delay == 1:
            say(f"no answer from {ADDRESSES} ({answer.status}); trying again")
        retry_after = answer.headers.get("retry-after", "")
        is_number = retry_after.isascii() and retry_after.isdigit()
        shortest = min(int(retry_after), MAX_RETRY_AFTER) if is_number else 0.1
        self.stopping.wait(shortest + random.uniform(0, self._retry_delay))
        self._retry_delay = min(self._retry_delay * 2, 30.0)

    def _take(self) -> Answer | None:
        answer = self._ask(f"/jobs/dequeue?{self._wanted}")
        if answer.retryable:
            if not self.stopping.is_set():
                self._back_off(answer)
            return None
        self._retry_delay = 1.0
        if answer.status not in (200, 204):
            say(f"refused: {answer.body.decode(errors='replace').strip()}")
            self.refused = True
            self.stopping.set()
        self._over = answer.status == 204 and self.options.once
        return answer if answer.is_job else None

    def _report(self, job: Answer, verb: str, body: bytes = b"", kind: str = "text/plain") -> Answer:
        """Reports the end of a job. Retries until the server has answered, up to ten times."""
        path = f"/jobs/{job.headers['job-id']}/{verb}"
        answer = self._ask(path, body, job.headers["job-lease"], kind)
        for _ in range(9):
            if not answer.retryable:
                self._retry_delay = 1.0
                break
            if self.stopping.is_set():
                time.sleep(0.5)
            else:
                self._back_off(answer)
            answer = self._ask(path, body, job.headers["job-lease"], kind)
        return answer

    # -- one job --------------------------------------------------------------------------------------

    def _work(self, job: Answer) -> Answer | None:
        """Runs the command for a job. Returns the next job, if the conclude of this one returned it."""
        variables = {name: unquote(job.headers.get(header, "")) for name, header in _VARIABLES}
        id = job.headers["job-id"]
        variables.update(JOB_URL=f"{self._addresses[0]}/jobs/{id}", JOBQUEUE_URL=ADDRESSES)
        environment = {**os.environ, **variables}
        try:
            started = subprocess.Popen(
                self.options.command, env=environment, start_new_session=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except OSError as failure:
            self._fail(job, "the command cannot be run", str(failure).encode())
            return None
        with started as process:
            stopped, out, err = self._supervise(process, job)
            status = process.returncode
        if status == 0:
            return self._conclude(job, out)
        if stopped == "lost":
            say(f"job {id}: its lease is lost; the command was stopped")
        elif stopped:
            self._release(job, 0)
        elif status == 75:
            self._release(job, self.options.delay)
        else:
            self._fail(job, f"exit {status}", err)
        return None

    def _supervise(self, process: subprocess.Popen[bytes], job: Answer) -> tuple[str, bytes, bytes]:
        """Renews the lease until the command ends.

        Returns why the command was stopped ("lost", "cancelled", "stopped", or "" if it was not), its output
        and its standard error.
        """
        # At least every 4 seconds, so that a cancelled job is noticed soon.
        every = min(max(float(job.headers.get("job-lease-for", "3")) / 3, 0.3), 4.0)
        beat_at = time.monotonic() + every
        stopped, kill_at = "", 0.0
        payload: bytes | None = job.body
        while True:
            try:
                out, err = process.communicate(payload, timeout=min(every, 0.5))
                return stopped, out, err
            except subprocess.TimeoutExpired:
                payload = None
            now = time.monotonic()
            if stopped:
                if now >= kill_at:
                    send_signal(process, signal.SIGKILL)
                if stopped != "lost" and now >= beat_at:  # the job is released once the command has ended
                    beat_at = now + every
                    self._heartbeat(job)
                continue
            if self.at_once or (self.stopped_at is not None and now >= self.stopped_at + self.options.grace):
                stopped = "stopped"
            elif now >= beat_at:
                beat_at = now + every
                stopped = self._heartbeat(job)
            if stopped:
                send_signal(process, signal.SIGTERM)
                kill_at = now + 5

    def _heartbeat(self, job: Answer) -> str:
        answer = self._ask(f"/jobs/{job.headers['job-id']}/heartbeat", b"", job.headers["job-lease"])
        if answer.status in GONE:
            return "lost"
        # The error of an earlier attempt may hold any text, so only what precedes it counts.
        return "cancelled" if b'"cancel_requested":true' in answer.body.partition(b'"error":')[0] else ""

    # -- the outcome ----------------------------------------------------------------------------------

    def _conclude(self, job: Answer, out: bytes) -> Answer | None:
        """Concludes a job. If the worker goes on, the same request waits for the next job and returns it."""
        id, kind = job.headers["job-id"], self.options.type
        answer = Answer(0, {}, b"")
        if not self.stopping.is_set():
            path = f"/jobs/{id}/conclude?next=1&{self._wanted}"
            answer = self._ask(path, out, job.headers["job-lease"], kind)
            self._over = answer.status == 204 and self.options.once
        if answer.retryable:  # the server may have received it; a second conclude changes nothing
            answer = self._report(job, "conclude?raw=1", out, kind)
        if answer.status in (200, 204):
            self._reported(job, "concluded")
        elif answer.retryable or answer.status in (401, *GONE):
            self._not_reported(job, "concluded", answer)
        else:
            # Doing the work again would not change its result.
            self._fail(job, f"the result was refused ({answer.status})", answer.body, retry=False)
        return answer if answer.is_job else None

    def _release(self, job: Answer, delay: int) -> None:
        answer = self._report(job, f"release?delay={delay}")
        (self._reported if answer.status == 200 else self._not_reported)(job, "released", answer)

    def _fail(self, job: Answer, why: str, output: bytes, retry: bool = True) -> None:
        lines = output.decode(errors="replace").strip().splitlines()
        say(f"job {job.headers['job-id']}: {why}: {lines[-1] if lines else ''}")
        verb = "fail?raw=1" if retry else "fail?raw=1&retry=false"
        answer = self._report(job, verb, why.encode() + b"\n" + output[-4000:])
        (self._reported if answer.status == 200 else self._not_reported)(job, "failed", answer)

    def _reported(self, job: Answer, outcome: str, answer: Answer | None = None) -> None:
        if self.options.verbose:
            say(f"job {job.headers['job-id']}: {outcome}")

    def _not_reported(self, job: Answer, outcome: str, answer: Answer) -> None:
        id = job.headers["job-id"]
        say(f"job {id}: could not be {outcome} ({answer.status}); its lease will time out")


def send_signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to the command and to all processes that it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


def connect(address: str, timeout: float, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    url = urlsplit(address)
    host = url.hostname or "localhost"
    if url.scheme == "https":
        return http.client.HTTPSConnection(host, url.port, timeout=timeout, context=tls)
    return http.client.HTTPConnection(host, url.port, timeout=timeout)


def trusting(about: argparse.ArgumentParser, ca: str) -> ssl.SSLContext:
    """Returns a context that trusts the authorities in a file or a folder."""
    try:
        import ssl

        if os.path.isdir(ca):
            return ssl.create_default_context(capath=ca)
        return ssl.create_default_context(cafile=ca)
    except (OSError, ImportError) as bad:
        about.error(f"--ca {ca}: {bad}")


def open_closed_streams() -> None:
    """Opens those of the three standard streams that are closed. Otherwise a connection would get the number
    of standard error, and the log would go there."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def main() -> int:
    open_closed_streams()
    about = argparse.ArgumentParser(
        prog="worker.py", usage="worker.py [options] QUEUE[,QUEUE...] [--] COMMAND [ARGUMENT...]",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = about.add_argument
    add("-j", type=int, default=1, metavar="N", help="number of jobs at once (1)")
    wait_help = "longest wait for a job in one request (30; 0 with -o)"
    add("-w", type=int, metavar="SECONDS", help=wait_help)
    add("-l", type=int, metavar="SECONDS", help="duration of the lease (the job's own, else the queue's)")
    add("-d", type=int, default=10, metavar="SECONDS", help="delay of a job whose command exits with 75 (10)")
    add("-g", type=float, default=8, metavar="SECONDS", help="time for a command after a signal (8)")
    name = f"{socket.gethostname()}-{os.getpid()}"
    add("-n", metavar="NAME", default=name, help="name of the consumer (host and pid)")
    add("-t", metavar="TYPE", default="text/plain", help="media type of the command's output (text/plain)")
    add("-o", action="store_true", help="exit when there is no job")
    add("-v", action="store_true", help="log the outcome of each job")
    add("--ca", metavar="FILE", help="certificates of the authorities to trust (the system's)")
    add("-V", action="version", version=f"jobqueue worker {VERSION}")
    add("queues", metavar="QUEUE[,QUEUE...]")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    given = about.parse_args()
    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command or shutil.which(command[0]) is None:
        about.error(f"there is no command {command[0]}" if command else "the command is missing")
    if not re.fullmatch(r"[A-Za-z0-9_.:,-]+", given.queues):
        about.error(f"not the name of a queue: {given.queues}")
    if given.j < 1:
        about.error("-j: must be 1 or more")
    tls = None if given.ca is None else trusting(about, given.ca)
    wait = given.w if given.w is not None else 0 if given.o else 30
    options = Options(
        given.queues, command, wait, given.l, given.d, given.g, given.n, given.t, given.o, given.v, tls
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
    say(f"waits for jobs of {given.queues} at {ADDRESSES}")
    for slot in slots:
        slot.start()
    for slot in slots:
        while slot.is_alive():
            slot.join(0.2)
            if stopping.is_set():  # the slot may have begun to wait after the signal
                slot.interrupt()
    return int(any(slot.refused for slot in slots))


if __name__ == "__main__":
    sys.exit(main())
