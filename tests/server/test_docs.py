"""Every command of the README and of docs/ is pasted into a shell, against the real program.

`test_every_command_is_run_by_some_test` fails for a line that none of these tests would run.
"""

import hashlib
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
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
# Pages whose lines are pasted one by one.
BY_LINE = ("README.md", "docs/api.md", "docs/shell.md", "docs/streams.md", "docs/schedules.md")
# Pages whose commands start servers.
BY_PAGE = ("docs/security.md", "docs/durability.md")
# Pages whose commands other tests run.
ELSEWHERE = {
    "docs/cli.md": "cli/test_cli_page.py",
    "docs/frameworks.md": "frameworks/test_frameworks_page.py",
    "docs/install.md": "test_packages.py",
    "docs/postgresql.md": "server/test_main_postgres.py",
    "docs/python.md": "worker/test_python_page.py",
    "docs/sqs.md": "web/test_sqs_clients.py",
}
# Pages with answers.
WITH_ANSWERS = {"README.md": 3, "docs/api.md": 1}
# Errors that a line of the docs may show; the comment beside some lines says so.
_REFUSALS_SHOWN = {"duplicate_job", "idempotency_mismatch", "precondition_failed"}
# curl's exit status after --max-time.
_TIME_OVER = 28
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def _blocks(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def _is_worker(block: str) -> bool:
    return "while :" in block


def _is_script(line: str) -> bool:
    """Is it a command that only works on the repository?"""
    return bool(re.match(r"(\./scripts/|\.ci/run)", line))


def _examples(page: str) -> list[str]:
    """Returns the commands of the page's ```sh blocks that call the API; a block with a loop is one command."""
    found = []
    for block in _blocks(page):
        if block.startswith("$") or _is_worker(block):
            continue
        if "while read" in block:
            found.append(block)
            continue
        found += [line for line in block.splitlines() if re.match(r"(curl|printf) ", line)]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_run_by_some_test(page):
    for block in _blocks(page):
        if page in BY_PAGE or (_is_worker(block) and page == "docs/shell.md"):
            continue
        if page in ELSEWHERE:
            continue
        if block.startswith("$ "):
            assert page in WITH_ANSWERS
            continue
        makes_jobs = "take() {" in block and page == "docs/api.md"
        for line in block.splitlines():
            skipped = not line.strip() or line.startswith("#") or line == "Q=http://localhost:8080"
            run = page in BY_LINE and (re.match(r"(curl|printf) ", line) or "while read" in block)
            assert skipped or run or _is_script(line) or makes_jobs, line


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_page_with_tests_of_its_own_is_read_by_them(page):
    assert Path(page).name in (ROOT / "tests" / ELSEWHERE[page]).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_script_that_is_shown_exists(page):
    lines = [line for block in _blocks(page) for line in block.splitlines() if page not in BY_PAGE]
    lines += re.findall(r"`((?:\./scripts/|\.ci/run)[^`]*)`", PAGES[page])
    for line in filter(_is_script, lines):
        command, *arguments = line.partition("#")[0].split()
        assert os.access(ROOT / command, os.X_OK), line
        for argument in arguments:
            assert not argument.startswith("tests/") or (ROOT / argument).exists(), line


def _shell(program: Program, line: str, folder: Path, **variables: str) -> str:
    """Runs a line, and returns its output. What has no end runs for a moment."""
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
    """Makes the files that the lines of the docs use."""
    for name in ("cat.jpg", "result"):
        (folder / name).write_bytes(bytes(range(256)))
    command = folder / "make_thumb"
    command.write_text("#!/bin/sh\nwc -c\n")
    command.chmod(0o755)


def test_each_line_of_the_help_can_be_pasted(tmp_path):
    """The lines are for the address that the help was asked at; `ID` and `LEASE` are those of a job."""
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


def making_of(function: str) -> str:
    """Returns a command that makes a job as the page says, and prints its id and its lease."""
    (block,) = (block for block in _blocks("docs/api.md") if "take() {" in block)
    return block.partition("\n")[2] + f'{function}; echo "$id ${{lease-}}"'


@pytest.mark.parametrize("page", BY_LINE)
def test_each_line_can_be_pasted(page, tmp_path):
    lines = _examples(page)
    assert len(lines) > (0 if page == "README.md" else 10)
    shell = partial(_shell, folder=tmp_path)
    _files(tmp_path)
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        for line in lines:
            line = re.sub(r"wait=\d+", "wait=0", line)  # the job may not exist
            line = line.replace("localhost:8080", f"127.0.0.1:{program.port}")
            line = line.replace(" thumbs -- ", " -o -w 0 thumbs -- ")  # a worker that ends
            if line.startswith("curl -N"):
                line = re.sub(r"(?<![a-z_])for=\d+[sm]\b", "for=200ms", line)
            variables = {}
            if "jobs/stream" in line:
                shell(program, 'curl "$Q/jobs/enqueue" -d \'{"type":"t","queue":"mail"}\'')
            if re.search(r"\$(id|lease)\b", line) and "while read" not in line:
                (made,) = re.findall(r"# after (\w+)", line) or ["take"]
                variables = dict(zip(("id", "lease"), shell(program, making_of(made)).split(), strict=False))
            answer = shell(program, line, **variables)
            for code in re.findall(r'"code":"(\w+)","status":\d', answer):
                assert code in _REFUSALS_SHOWN or "/jobs/conclude" in line or "atomic=false" in line, (
                    line,
                    answer,
                )
        program.stop()


def _lasting(answer: str) -> str:
    """Returns the answer without its leases, times and request ids."""
    return re.sub(r'"(lease|\w+_at|request_id)":"[^"]+"', r'"\1":"…"', answer.strip())


@pytest.mark.parametrize("page", WITH_ANSWERS)
def test_the_answers_on_the_page_are_those_that_are_given(page, tmp_path):
    blocks = "\n".join(block for block in _blocks(page) if block.startswith("$ "))
    shown = re.findall(r"^\$ (.*)\n(\{.*)$", blocks, re.MULTILINE)
    assert len(shown) == WITH_ANSWERS[page] == blocks.count("$ ")
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        lease = ""
        for line, answer in shown:
            line = re.sub(r"lease=[\w-]+", f"lease={lease}", line)
            line = line.replace("localhost:8080", f"127.0.0.1:{program.port}")
            given = _shell(program, line, tmp_path)
            assert _lasting(given) == _lasting(answer)
            lease = json.loads(given).get("lease", lease)


def test_the_screen_in_the_readme_is_the_one_that_is_drawn(tmp_path):
    """Compares the words of its first lines and the names of its columns; the figures are of another day."""
    (screen,) = re.findall(r"^```\n(jobqueue .*?)^```", PAGES["README.md"], re.MULTILINE | re.DOTALL)
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        drawn = _shell(program, 'curl -N "$Q/top?for=200ms"', tmp_path)
        program.stop()
    drawn = re.sub(r"\x1b\[(2J|[HJK])", "", drawn)

    def words(text: str) -> list[str]:
        found = re.findall(r"\b[A-Za-z_/]+\b", "\n".join(text.splitlines()[:5]))
        return ["connections" if word == "connection" else word for word in found]

    assert words(screen) == words(drawn)


def test_take_gives_a_job_to_try_a_line_on(tmp_path):
    take = making_of("take") + "\n"
    with Program(JOBQUEUE_ACCESS_LOG="off", JOBQUEUE_FIRST_ID="1") as program:
        line = take + 'take >/dev/null; curl -s -d "{\\"lease\\":\\"$lease\\"}" "$Q/jobs/$id/conclude"'
        answer = json.loads(_shell(program, line, tmp_path).splitlines()[1])
        assert (answer["id"], answer["status"]) == (2, "concluded")
        program.stop()


def test_the_worker_of_four_lines_works(tmp_path):
    (loop,) = filter(_is_worker, _blocks("docs/shell.md"))
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
            # Names of fields in the headers of a job, and in the error of its last attempt, change nothing.
            job = {"type": "x", "payload": {"payload": 4}, "headers": {"payload": "boom", "lease": "no"}}
            program.call("POST", "/jobs/enqueue", job)
            until(lambda: program.call("GET", "/jobs/count?status=concluded")[1] == {"count": 4}, 20)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert seen == [{"to": 'ada, "}lease"'}, [1, {"id": 2}], None, {"payload": 4}]


def test_the_tokens_file_on_the_page_is_accepted(tmp_path):
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGES["docs/security.md"], re.MULTILINE | re.DOTALL)
    token = "a-token-for-this-test"
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(text.replace("…", hashlib.sha256(token.encode()).hexdigest()).replace("2027-", "2127-"))
    with Program(JOBQUEUE_TOKENS_FILE=str(tokens)) as program:
        sent = {"Authorization": f"Bearer {token}"}
        assert program.call("POST", "/jobs/enqueue", {"type": "x", "queue": "mail-in"}, **sent)[0] == 201
        assert program.call("POST", "/jobs/enqueue", {"type": "x", "queue": "other"}, **sent)[0] == 403
        assert program.call("POST", "/queues/mail/dequeue", **sent)[0] == 403
        program.stop()


# For pages whose commands start servers. A server runs until the next one starts.
_PASTE = """
stop() { [ -z "${server-}" ] || { kill "$server"; wait "$server"; server=; }; }
started() { server=$!; until grep -q ' on ' log; do kill -0 "$server" || exit; sleep 0.05; done; }
trap stop EXIT
set -e
"""


@pytest.mark.parametrize("page", BY_PAGE)
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
    for block in _blocks(page):
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
