"""Every command of the README and of docs/ is pasted into a shell, against the real program."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trustme
from running import Program, environment, until

ROOT = Path(__file__).parents[2]
# What a line of the docs may be answered with; the comment beside some lines says so.
_REFUSALS_SHOWN = {"duplicate_job", "idempotency_mismatch", "precondition_failed"}
# What curl says when its time is over.
_TIME_OVER = 28
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def _examples(page: str) -> list[str]:
    """The commands of the page's ```sh blocks that call the API, a whole block where one has a loop in it."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        if block.startswith("$") or "while :" in block or "scripts/" in block:
            continue
        if "while read" in block:
            found.append(block)
            continue
        found += [line for line in block.splitlines() if re.match(r"(curl|printf) ", line)]
    return found


def _shell(program: Program, line: str, folder: Path, **variables: str) -> str:
    """What comes without end is looked at for a moment."""
    endless = line.startswith("curl -N ")
    silent = "curl -s --max-time 0.3 " if endless else "curl -s "
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", line.replace("curl ", silent, 1) if line.startswith("curl") else line],
        env={"PATH": path, **dict.fromkeys("QAB", f"http://127.0.0.1:{program.port}"), **variables},
        cwd=folder, capture_output=True, text=True, errors="replace", timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or (endless and done.returncode == _TIME_OVER and done.stdout), (line, done)
    return done.stdout


def _files(folder: Path) -> None:
    """What the lines of the docs take for granted."""
    for name in ("cat.jpg", "result"):
        (folder / name).write_bytes(bytes(range(256)))
    command = folder / "make_thumb"
    command.write_text("#!/bin/sh\nwc -c\n")
    command.chmod(0o755)


def test_each_line_of_the_help_can_be_pasted(tmp_path):
    """As it stands, for the address that it was asked at; with the id and the lease of a job in it."""
    _files(tmp_path)
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        shell = partial(_shell, program, folder=tmp_path)
        text = shell("curl $Q/help")
        lines = re.findall(r"^  [a-z][A-Za-z ,]{0,14}  +(curl .*?)(?:   .*)?$", text, re.MULTILINE)
        lines += [line.strip() for line in re.findall(r"^    and next +(curl .*)$", text, re.MULTILINE)]
        assert len(lines) >= 20
        assert all(f"127.0.0.1:{program.port}/" in line for line in lines)
        for line in dict.fromkeys(lines):
            line = re.sub(r"wait=30", "wait=0", line).replace(
                "QUEUE -- COMMAND", "-o -w 0 thumbs -- ./make_thumb"
            )
            made = json.loads(shell('curl "$Q/jobs/enqueue" -d \'{"type":"t","queue":"own"}\''))
            if "LEASE" in line:
                made = json.loads(shell('curl -X POST "$Q/jobs/dequeue?queue=own&count=1000"'))["jobs"][-1]
            values = {"ID": str(made["id"]), "LEASE": made.get("lease", "")}
            answer = shell(re.sub(r"\b(ID|LEASE)\b", lambda found: values[found[0]], line))
            assert not re.findall(r'"code":"\w+","status":\d', answer), (line, answer)
        program.stop()


@pytest.mark.parametrize("page", ["docs/api.md", "docs/shell.md", "docs/streams.md", "README.md"])
def test_each_line_can_be_pasted(page, tmp_path):
    lines = _examples(page)
    assert len(lines) > 10
    shell = partial(_shell, folder=tmp_path)
    _files(tmp_path)
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        for line in lines:
            # A wait is for a job that may not be there: the line is tried, the waiting is not.
            line = re.sub(r"wait=\d+", "wait=0", line)
            line = line.replace(" thumbs -- ", " -o -w 0 thumbs -- ")  # a worker that ends
            if line.startswith("curl -N"):
                line = re.sub(r"(?<![a-z_])for=\d+[sm]\b", "for=200ms", line)
            made = json.loads(shell(program, 'curl "$Q/jobs/enqueue" -d \'{"type":"t","queue":"own"}\''))
            variables = {"id": str(made["id"])}
            if "jobs/stream" in line:
                shell(program, 'curl "$Q/jobs/enqueue" -d \'{"type":"t","queue":"mail"}\'')
            if "$lease" in line and "while read" not in line:
                taken = json.loads(shell(program, 'curl -X POST "$Q/jobs/dequeue?queue=own&count=1000"'))
                variables = {"id": str(taken["jobs"][-1]["id"]), "lease": taken["jobs"][-1]["lease"]}
            if "redrive" in line:
                taken = json.loads(shell(program, 'curl -X POST "$Q/jobs/dequeue?queue=own&count=1000"'))
                variables = {"id": str(taken["jobs"][-1]["id"])}
                shell(program, 'curl -d \'{"retry":false}\' "$Q/jobs/$id/fail"', **variables)
            answer = shell(program, line, **variables)
            for code in re.findall(r'"code":"(\w+)","status":\d', answer):
                assert code in _REFUSALS_SHOWN or "/jobs/conclude" in line or "atomic=false" in line, (
                    line,
                    answer,
                )
        program.stop()


def _lasting(answer: str) -> str:
    """All but the leases, the times and the request ids."""
    return re.sub(r'"(lease|\w+_at|request_id)":"[^"]+"', r'"\1":"…"', answer.strip())


def test_the_answers_in_the_readme_are_those_that_are_given(tmp_path):
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```sh\n(\$ .*?)^```", text, re.MULTILINE | re.DOTALL)
    shown = re.findall(r"^\$ (.*)\n(\{.*)$", "\n".join(blocks), re.MULTILINE)
    assert len(shown) == 4
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        lease = ""
        for line, answer in shown:
            line = re.sub(r"lease=[\w-]+", f"lease={lease}", line)
            line = line.replace("localhost:8080", f"127.0.0.1:{program.port}")
            given = _shell(program, line, tmp_path)
            assert _lasting(given) == _lasting(answer)
            lease = json.loads(given).get("lease", lease)


def test_take_in_the_readme_gives_a_job_to_try_a_line_on(tmp_path):
    (take,) = re.findall(
        r"^take\(\) \{\n.*?^\}\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        line = take + 'take; take; curl -s -d "{\\"lease\\":\\"$lease\\"}" "$Q/jobs/$id/conclude"'
        answer = json.loads(_shell(program, line, tmp_path))
        assert (answer["id"], answer["status"]) == (2, "concluded")
        program.stop()


def test_the_worker_in_the_readme_works(tmp_path):
    text = (ROOT / "README.md").read_text()
    (loop,) = re.findall(r"^```sh\n(Q=\S+\nwhile :.*?)^```", text, re.MULTILINE | re.DOTALL)
    work = tmp_path / "work"
    work.write_text("#!/bin/sh\ncat >> seen; echo >> seen\n")
    work.chmod(0o755)
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        worker = subprocess.Popen(
            ["sh", "-c", loop.replace("localhost:8080", f"127.0.0.1:{program.port}")],
            cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            for payload in ({"to": 'ada, "}lease"'}, [1, {"id": 2}], None):
                program.call("POST", "/jobs/enqueue", {"type": "x", "payload": payload})
            until(lambda: program.call("GET", "/jobs/count?status=concluded")[1] == {"count": 3}, 20)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert seen == [{"to": 'ada, "}lease"'}, [1, {"id": 2}], None]


# Of the pages whose commands start servers. Each is started for the block it stands in, and those after it.
_PASTE = """
stop() { [ -z "${server-}" ] || { kill "$server"; wait "$server"; server=; }; }
started() { server=$!; until grep -q ' on ' log; do kill -0 "$server" || exit; sleep 0.05; done; }
trap stop EXIT
set -e
"""


@pytest.mark.parametrize("page", ["docs/security.md", "docs/durability.md"])
def test_the_commands_that_start_a_server_and_look_after_it_can_be_pasted(page, tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    authority = trustme.CA()
    ours = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours.private_key_pem.write_to_path(tmp_path / "key.pem")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    script = _PASTE
    for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if re.search(r"scripts/run\.sh( &)?$", line):
                line = f"stop; : > log; {line.removesuffix(' &')} 2>> log & started"
            if "repair" in line:
                line = f"stop; {line}"
            line = re.sub(r"\bFILE\b", "copy", line.replace("kill -HUP $!", 'kill -HUP "$server"'))
            line = re.sub(r"^curl ", "curl -sSf ", line).replace("localhost:8080", f"localhost:{port}")
            script += re.sub(r"/(etc|run|var/lib)/jobqueue", str(tmp_path), line) + "\n"
    done = subprocess.run(
        ["sh", "-c", script], env=environment(JOBQUEUE_PORT=port), cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = (script, done.stdout, done.stderr, (tmp_path / "log").read_text())
    assert done.returncode == 0, said
    assert len(script.splitlines()) - len(_PASTE.splitlines()) > 5
    if "security" in page:
        assert done.stdout.count('{"version":') == 3, said
        assert "tokens.toml" in os.listdir(tmp_path)
