"""The real program with access tokens: its first line, and reloading the tokens."""

import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from running import MODULE, Program, environment, until

from jobqueue.web.access.tokens import digest_of

ONE = "one-token-for-everything"


def lines(*names: str) -> str:
    return "".join(
        f'[{name}]\ndigest = "{digest_of(name)}"\nrights = ["enqueue", "dequeue", "read"]\n' for name in names
    )


def test_the_first_line_has_the_number_of_tokens_and_no_token(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(lines("a", "b"))
    with Program(
        JOBQUEUE_ACCESS_TOKEN=ONE, JOBQUEUE_TOKENS_FILE=str(file), JOBQUEUE_ACCESS_LOG="all"
    ) as program:
        assert program.start_line.endswith("; access tokens: 3")
        assert program.call("GET", "/stats")[0] == 401
        assert program.call("GET", "/stats", Authorization=f"Bearer {ONE}")[0] == 200
        assert program.call("GET", "/stats", Authorization="Bearer wrong-one")[0] == 401
        if shutil.which("curl"):
            url = f"http://127.0.0.1:{program.port}/stats"
            answer = subprocess.run(["curl", "-sf", "-u", f":{ONE}", url], capture_output=True, check=True)
            assert answer.stdout.startswith(b"{")
        assert program.stop() == 0
    said = "\n".join(program.lines)
    assert ONE not in said
    assert "wrong-one" not in said


def test_sighup_reloads_the_tokens_file(tmp_path):
    file = tmp_path / "tokens.toml"
    file.write_text(lines("a", "b"))
    with Program(JOBQUEUE_TOKENS_FILE=str(file)) as program, program.connect() as waiting:
        waiting.ask("POST", "/jobs/dequeue?wait=30", Authorization="Bearer a")
        until(lambda: program.call("GET", "/stats", Authorization="Bearer b")[1]["consumers_waiting"] == 1)
        file.write_text("nonsense")
        program.signal(signal.SIGHUP)
        until(lambda: any("error not reloaded: JOBQUEUE_TOKENS_FILE=" in line for line in program.lines))
        assert program.call("GET", "/stats", Authorization="Bearer a")[0] == 200
        file.write_text(lines("b", "c"))
        program.signal(signal.SIGHUP)
        answer = waiting.read()
        assert (answer.status, answer.json["code"]) == (401, "unauthorized")
        assert program.call("GET", "/stats", Authorization="Bearer a")[0] == 401
        assert program.call("GET", "/stats", Authorization="Bearer c")[0] == 200
        until(lambda: any(line.endswith("info reloaded; access tokens: 2") for line in program.lines))
        assert program.stop() == 0


def test_what_a_token_began_ends_when_it_expires(tmp_path):
    end = datetime.now(UTC) + timedelta(seconds=2)
    file = tmp_path / "tokens.toml"
    file.write_text(lines("b") + lines("a").replace('"]', f'"]\nexpires_at = {end.isoformat()}'))
    with Program(JOBQUEUE_TOKENS_FILE=str(file)) as program:
        with program.connect() as waiting, program.connect() as stream:
            stream.ask("POST", "/jobs/stream?queue=q", Authorization="Bearer a")
            waiting.ask("POST", "/jobs/dequeue?wait=60&queue=q", Authorization="Bearer a")
            answer = waiting.read()
            assert (answer.status, answer.json["code"]) == (401, "unauthorized")
            assert datetime.now(UTC) >= end
            made = program.call("POST", "/queues/q/enqueue", {"type": "secret"}, Authorization="Bearer b")
            assert made[0] == 201
            shown = b""
            while not shown.endswith((b"\r\n0\r\n\r\n", b"}\n")):  # the end of the stream, or of a 401
                piece = stream.socket.recv(65536)
                assert piece
                shown += piece
            assert b"secret" not in shown
        assert program.call("GET", f"/jobs/{made[1]['id']}", Authorization="Bearer b")[1]["attempts"] == 0
        assert program.stop() == 0


def test_without_tokens_the_first_line_says_so_and_mentions_open_administrative_calls():
    with Program(JOBQUEUE_OPEN_ADMIN="true") as program:
        assert program.start_line.endswith(
            "; no access tokens: anyone who can reach it may use it, administrative calls included"
        )
        status, _ = program.call("POST", "/queues/x/pause", X_Forwarded_For="10.0.0.7")
        assert status == 200


@pytest.mark.parametrize("text", [None, "nonsense"])
def test_a_bad_tokens_file_is_one_line_and_exit_2(tmp_path, text):
    file = tmp_path / "tokens.toml"
    if text is not None:
        file.write_text(text)
    done = subprocess.run(
        MODULE, env=environment(JOBQUEUE_TOKENS_FILE=str(file), JOBQUEUE_PORT="0"), capture_output=True,
        text=True, timeout=20, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"jobqueue: JOBQUEUE_TOKENS_FILE={file}: ")
