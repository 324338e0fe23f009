"""Every signal that a terminal, a supervisor or a log rotation sends to the real program."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import MODULE, Program, environment, until

TOKENS = '[ann]\ndigest = "{}"\nrights = ["read"]\n'.format("ab" * 32)
STOPPED = "stopped; 0 queued, 0 in progress, 0 scheduled jobs discarded"


def said(program, text):
    return any(text in line for line in program.lines)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_child_that_the_caller_had_started_is_not_left_dead(tmp_path):
    """`scripts/run.sh` starts the compiler, and then becomes the server."""
    fifo = tmp_path / "ends when this is closed"
    os.mkfifo(fifo)
    with Program(("sh", "-c", f"cat {shlex.quote(str(fifo))} & exec {shlex.join(MODULE)}")) as program:
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        assert children.read_text() != ""
        fifo.write_text("")
        until(lambda: children.read_text() == "")
        assert program.stop() == 0


def test_hup_without_files_changes_nothing_and_says_so():
    with Program() as program:
        program.call("POST", "/jobs/enqueue", {"type": "x"})
        program.signal(signal.SIGHUP)
        until(lambda: said(program, "nothing to reload"))
        assert program.call("GET", "/stats")[1]["jobs"]["queued"] == 1
        assert program.stop() == 0


def test_hup_is_answered_also_if_the_caller_ignores_it():
    """As nohup does, and `scripts/run.sh`."""
    with Program(("sh", "-c", f"trap '' HUP INT; exec {shlex.join(MODULE)}")) as program:
        program.signal(signal.SIGHUP)
        until(lambda: said(program, "nothing to reload"))
        program.signal(signal.SIGINT)
        assert program.exit_status() == 0


@pytest.mark.parametrize("name", ["USR1", "USR2", "ALRM"])
def test_a_signal_that_means_nothing_here_is_one_line_of_the_log(name):
    with Program() as program:
        program.signal(getattr(signal, f"SIG{name}"))
        until(lambda: said(program, f"signal {name}: nothing to do"))
        assert program.call("GET", "/readyz")[0] == 200
        assert program.stop() == 0


def test_signals_of_a_terminal_and_of_a_reader_that_has_gone_change_nothing():
    with Program() as program:
        for number in (signal.SIGPIPE, signal.SIGWINCH, signal.SIGTTOU, signal.SIGURG, signal.SIGCHLD):
            program.signal(number)
            assert program.call("GET", "/readyz")[0] == 200
        program.signal(signal.SIGTSTP)
        program.signal(signal.SIGCONT)
        assert program.call("GET", "/readyz")[0] == 200
        assert program.stop() == 0
        assert program.lines[1:] == [STOPPED]


def test_quit_stops_the_server_as_term_does():
    with Program() as program:
        program.signal(signal.SIGQUIT)
        assert program.exit_status() == 0
        assert program.lines[-1] == STOPPED


@contextlib.contextmanager
def starting(tmp_path):
    """A program that waits in its start: its file of tokens is a pipe. Yields it, and the end to write to."""
    fifo = tmp_path / "tokens"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        MODULE, env=environment(JOBQUEUE_PORT="0", JOBQUEUE_HOST="127.0.0.1", JOBQUEUE_TOKENS_FILE=str(fifo)),
        cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process, open(fifo, "w")  # noqa: SIM115 (the test closes it); this waits for the reader
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_during_the_start_hup_is_kept_until_it_serves(tmp_path):
    with starting(tmp_path) as (process, tokens):
        for number in (signal.SIGHUP, signal.SIGUSR1):
            process.send_signal(number)
        with tokens:
            tokens.write(TOKENS)
        while " on http://" not in (line := process.stderr.readline()):
            assert line, "it has ended"
        with open(tmp_path / "tokens", "w") as again:  # the reload that HUP asked for
            again.write(TOKENS + TOKENS.replace("ann", "bob").replace("ab", "cd"))
        while "reloaded" not in (line := process.stderr.readline()):
            assert line, "it has ended"
        assert "access tokens: 2" in line
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_during_the_start_a_stop_ends_it_at_once(tmp_path, number):
    with starting(tmp_path) as (process, tokens), tokens:
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == "jobqueue: stopped before it served\n"


def test_during_the_stop_other_signals_change_nothing():
    with Program(JOBQUEUE_DRAIN="60s") as program, program.connect() as half:
        half.send(b"POST /jobs/enqueue HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{")
        assert program.call("GET", "/healthz")[0] == 200
        program.signal()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM):
            program.signal(number)
        until(lambda: said(program, "signal ALRM"))
        assert program.running
        program.signal(signal.SIGINT)
        assert program.exit_status() == 1


def test_a_file_of_tokens_that_does_not_answer_holds_up_nobody(tmp_path):
    """A file on a dead mount; here a pipe that nobody writes to."""
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    with Program(JOBQUEUE_TOKENS_FILE=str(path)) as program:
        path.unlink()
        os.mkfifo(path)
        program.signal(signal.SIGHUP)
        writer = open(path, "w")  # noqa: SIM115 (closed below); the server reads it now
        for _ in range(3):
            assert program.call("GET", "/healthz")[0] == 200
        program.signal(signal.SIGHUP)
        until(lambda: said(program, "still being read"))
        with writer:
            writer.write(TOKENS + TOKENS.replace("ann", "bob").replace("ab", "cd"))
        until(lambda: said(program, "reloaded; access tokens: 2"))
        with open(path, "w") as again:  # the second HUP came while it read: the file is read once more
            again.write(TOKENS)
        until(lambda: said(program, "reloaded; access tokens: 1"))
        program.signal(signal.SIGHUP)
        with open(path, "w"):  # and it reads again: a stop does not wait for that
            assert program.stop() == 0


def test_a_second_signal_ends_a_server_that_a_disk_holds_up():
    """The loop is blocked, as it would be by a write that does not return."""
    script = """if True:
        import asyncio, sys, time
        from jobqueue.server import signals
        from jobqueue.server.log_writer import LogWriter
        signals.hold()
        signals._LIMIT_AT_ONCE = 0.05
        out = LogWriter()
        watching = signals.Signals(out)
        async def serve():
            watching.serve(lambda: None, lambda: None, 3600.0, 74)
            out.write("ready")
            time.sleep(60)
        asyncio.run(serve())
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr.readline() == "ready\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.wait(10) == 1
        assert "something blocks" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_stop_that_never_ends_is_ended_by_the_limit():
    script = """if True:
        import asyncio, time
        from jobqueue.server import signals
        from jobqueue.server.log_writer import LogWriter
        signals.hold()
        signals._LIMIT = 0.05
        out = LogWriter()
        watching = signals.Signals(out)
        async def serve():
            watching.serve(lambda: None, lambda: None, 0.0, 74)
            watching.limit_stop()
            time.sleep(60)
        asyncio.run(serve())
    """
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 74


def test_threads_inherit_the_blocked_signals():
    """Otherwise the system could hand a signal to a thread in which it still has its own effect."""
    with Program() as program:
        masks = []
        for task in os.listdir(f"/proc/{program.pid}/task"):
            with open(f"/proc/{program.pid}/task/{task}/status") as status:
                fields = dict(line.split(":", 1) for line in status)
                masks.append((fields["Name"].strip(), int(fields["SigBlk"], 16)))
        assert len(masks) > 2
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
            open_to = [name for name, mask in masks if not mask >> (number - 1) & 1]
            assert len(open_to) <= 1, (number, open_to)  # the thread that waits for them
