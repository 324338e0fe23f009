"""How commands end: exit statuses, early ends of pipes, and what they load."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from running import CLI, PACKAGE, Program, environment

from jobqueue.cli.commands import COMMANDS
from jobqueue.cli.main import help_text, main, parser_of
from jobqueue.web.access.tokens import digest_of

# Arguments with which each command makes its call.
CALLS = {
    "enqueue": ["x"],
    "dequeue": [],
    "conclude": ["1"],
    "fail": ["1"],
    "release": ["1"],
    "job": ["1"],
    "jobs": [],
    "cancel": ["1"],
    "retry": ["1"],
    "run-now": ["1"],
    "move": ["-q", "x", "--to", "y", "--all"],
    "purge": ["-q", "x", "--all"],
    "queues": [],
    "pause": ["x"],
    "resume": ["x"],
    "set": ["x", "max_jobs=1"],
    "export": ["x"],
    "import": [],
    "top": [],
    "tail": [],
    "schedules": [],
    "bench": ["-s", "1", "-w", "1"],
}
# Those that make no call, and those that need no right.
OTHERS = {"serve", "token", "journal", "migrate", "work", "context", "completion"} | {"ping", "openapi"}


def test_the_table_names_every_command():
    assert set(CALLS) | OTHERS == set(COMMANDS)


def test_nothing_to_do_is_help_on_standard_error_and_status_2(bare):
    """So an old unit file that starts `python -m jobqueue` fails loudly."""
    done = bare()
    assert (done.status, done.out) == (2, "")
    assert done.err == help_text() + "\n"


def test_help_is_printed_and_fits_a_terminal(bare):
    done = bare("--help")
    assert (done.status, done.err) == (0, "")
    shown = [line.split(maxsplit=1) for line in done.out.splitlines() if line.startswith("  ")]
    assert shown == [[name, command.summary] for name, command in COMMANDS.items()]
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_on_each_argument(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: jobqueue {name}")
    assert max(map(len, text.splitlines())) <= 80
    shown = " ".join(text.split())
    for action in parser_of(COMMANDS[name])._actions:
        assert action.help, action
        assert " ".join((action.help % {"prog": ""}).split()) in shown, action


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("enqeue",), "did you mean enqueue?"),
        (("--port", "80"), "options come after a command"),
        (("jobs", "--stauts", "dead"), "unknown argument --stauts; did you mean --status?"),
        (("jobs", "--stauts=dead"), "did you mean --status?"),
        (("serve", "--prt", "80"), "unknown argument --prt; did you mean --port? `jobqueue serve --help`"),
        (("job", "x"), "argument ID: must be a whole number, not 'x'"),
        (("job",), "the following arguments are required: ID;"),
        (("context",), "the following arguments are required: ACTION;"),
        (("enqueue",), "give the TYPE"),
        (("enqueue", "x", "novalue"), "neither KEY=VALUE nor KEY:=JSON"),
        (("enqueue", "x", '{"a":1}'), "a whole payload comes from standard input, with - here"),
        (("enqueue", "x", "-"), "there is no JSON: the input or the value is empty"),
        (("enqueue", "x", "a:=nope"), "'nope' is not JSON"),
        (("enqueue", "x", "a:=nope"), "; text is a=nope"),
        (("enqueue", "x", "--max-attempts", "few"), "--max-attempts few"),
        (("purge", "-q", "x"), "give filters"),
        (("purge", "-q", "x", "--all", "--type", "t"), "not both"),
        (("purge", "--all"), "give -q QUEUE"),
        (("retry", "1", "-q", "x"), "not both; --queue"),
        (("retry", "1", "--dry-run"), "not both; --dry-run"),
        (("retry", "1", "--all"), "not both; --all"),
        (("retry", "1", "--limit", "0"), "not both; --limit"),
        (("retry", "1", "--older-than", "1h"), "not both; --older-than"),
        (("run-now", "1", "--retrying"), "not both; --retrying"),
        (("cancel", "1", "--contains", "x"), "not both; --contains"),
        (("cancel",), "give ids of jobs, or -q QUEUE and filters"),
        (("cancel", "-q", "x", "--force"), "give filters"),
        (("move", "-q", "x", "--all"), "give --to QUEUE"),
        (("move", "-q", "x", "--all", "--to", "y", "--back"), "not allowed with"),
        (("job", "1", "frobnicate"), "invalid choice"),
        (("job", "1", "explian"), "did you mean explain?"),
        (("schedules", "lst"), "did you mean list?"),
        (
            ("schedules", "put", "n", "x", "--cron", "0", "2", "*", "*", "*"),
            "put the cron expression in quotes",
        ),
        (("job", "1", "cancel", "priority=5"), "job cancel takes no priority=5"),
        (("job", "1", "retry", "--force"), "job retry takes no --force"),
        (("job", "1", "explain", "--wait", "1s"), "job explain takes no --wait"),
        (("job", "1", "--progress", "0"), "job show takes no --progress"),
        (("job", "1", "edit"), "needs a change"),
        (("job", "1", "edit", "status=dead"), "has no field to change 'status'"),
        (("job", "1", "edit", "max_attempts=default"), "none for no limit"),
        (("bench", "--workers", "0"), "from 1 to 1,000"),
        (("bench", "--seconds", "61"), "from 1 to 60"),
        (("bench", "--payload", "1"), "from 2 to"),
        (("set", "x", "maxjobs=1"), "has no setting"),
        (("set", "x", "rate=often"), "rate=often"),
        (("set", "x", "key_limits=default", "key_limits.rate=1"), "as a whole"),
        (("queues", "--json", "--text"), "not allowed with"),
        (("ping", "--url", "ftp://x"), "not the address of a server"),
        (("ping", "--url", "localhost:81"), "write http://localhost:81, or"),
        (("ping", "--context", "prod"), "there is no context 'prod'; `jobqueue context add` adds one"),
        (("ping", "--url", "http://x", "--context", "y"), "not both"),
        (("ping", "--retry-for", "soon"), "--retry-for soon"),
        (("ping", "--url", "https://x", "--ca", "/nonexistent"), "certificates"),
        (("context", "add", "x"), "an address"),
        (("context", "add", "a b", "http://x"), "not a name"),
        (("context", "add", "x", "http://x", "--token"), "no access token"),
        (("context", "use"), "needs the name"),
        (("context", "use", "x", "http://x"), "takes no http://x"),
        (("context", "rm", "x", "--token"), "takes no --token"),
        (("context", "ls", "x"), "takes no x"),
        (("jobs", "--count", "--limit", "0"), "--limit or --count"),
        (("jobs", "--count", "--newest"), "--newest or --count"),
        (("jobs", "--count", "--payload"), "--payload or --count"),
        (("queues", "x", "--names"), "--names or the name"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(bare, arguments, said):
    done = bare(*arguments)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("jobqueue: ")
    assert said in done.err


@pytest.mark.parametrize("name", [*CALLS, "ping"])
def test_a_server_that_is_not_there_is_status_4(bare, name):
    line = '{"type":"x","queue":"default"}\n'  # import sends nothing without one
    done = bare(name, *CALLS.get(name, []), "--url", "http://127.0.0.1:1", input=line)
    assert (done.status, done.out, done.err.count("\n")) == (4, "", 1)
    reason = "Connection refused; does a server run there? --url names another one"
    assert done.err == f"jobqueue: cannot connect to http://127.0.0.1:1: {reason}\n"


def test_the_wrong_scheme_is_named(bare, url):
    done = bare("ping", "--url", url.replace("http:", "https:"))
    assert (done.status, done.err.endswith(": no TLS is spoken there; write http:// in its address\n")) == (
        4,
        True,
    )


def test_help_takes_the_name_of_a_command(bare):
    assert bare("help", "ping") == bare("ping", "--help")
    assert bare("help", "pong").status == 2


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A server whose only token has no right but on a queue that nobody uses."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(
        f'[weak]\ndigest = "{digest_of("weak-weak-weak-weak")}"\nrights = ["enqueue"]\nqueues = ["other"]\n'
    )
    with Program(JOBQUEUE_TOKENS_FILE=str(file), JOBQUEUE_ACCESS_LOG="off") as running:
        yield running
        running.stop()


@pytest.mark.parametrize(
    "name",
    [name for name in CALLS if name not in ("job", "cancel", "retry", "run-now", "queues", "jobs")],
)
def test_a_token_without_the_right_is_refused_with_status_1(bare, closed, name):
    done = bare(
        name, *CALLS[name], input='{"type":"x","queue":"default"}\n',
        JOBQUEUE_URL=f"http://127.0.0.1:{closed.port}", JOBQUEUE_TOKEN="weak-weak-weak-weak",
    )  # fmt: skip
    assert (done.status, done.out) == (1, ""), done.err
    assert done.err.count("\n") == 1
    assert done.err.endswith("(forbidden)\n")


def test_a_token_that_does_not_exist_is_refused_with_status_1(bare, closed):
    done = bare("queues", JOBQUEUE_URL=f"http://127.0.0.1:{closed.port}", JOBQUEUE_TOKEN="wrong-wrong-wrong")
    assert (done.status, done.out) == (1, "")
    assert done.err.endswith("; this command takes it from JOBQUEUE_TOKEN or a context (unauthorized)\n")


def test_a_job_that_does_not_exist_is_status_3(cli):
    for command in ("job", "cancel", "retry", "run-now", "conclude"):
        done = cli(command, "1")
        assert (done.status, done.out) == (3, "")
        assert "(job_not_found)" in done.err


def test_a_pipe_that_ends_early_ends_a_command_quietly(cli, url, home):
    cli("enqueue", "-f", "-", "-q", "head", input='{"type":"x"}\n' * 1000)
    for command in (
        ["jobs", "-q", "head"],
        ["export", "head"],
        ["queues"],
        ["--help"],
        ["jobs", "--help"],
        ["tail", "--since", "0"],
    ):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*CLI, *command], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False,
            env=environment(JOBQUEUE_URL=url, HOME=str(home)),
        )  # fmt: skip
        os.close(writing)
        assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b""), command


def test_ctrl_c_ends_a_command_quietly(url, home):
    following = subprocess.Popen(
        [*CLI, "top"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(JOBQUEUE_URL=url, HOME=str(home)),
    )  # fmt: skip
    assert following.stdout is not None
    assert following.stdout.readline()
    following.send_signal(signal.SIGINT)
    assert following.communicate(timeout=30)[1] == b""
    assert following.returncode == -signal.SIGINT


def test_a_full_disk_is_one_line_and_status_1(cli, url, home):
    cli("enqueue", "x")  # so that there is something to print
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*CLI, "queues", "--json"], stdout=full, stderr=subprocess.PIPE, check=False, text=True,
            env=environment(JOBQUEUE_URL=url, HOME=str(home)),
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "jobqueue: cannot read the input or write the output: No space left on device\n"
    done = cli("enqueue", "-f", "/nonexistent")
    assert (done.status, done.err) == (1, "jobqueue: /nonexistent: No such file or directory\n")


@pytest.mark.parametrize(
    "arguments", [("enqueue", "x", "-"), ("enqueue", "-f", "-"), ("import",), ("schedules", "import")]
)
def test_a_closed_standard_input_is_one_line_and_status_1(url, home, arguments):
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *CLI, *arguments], capture_output=True, check=False, text=True,
        env=environment(JOBQUEUE_URL=url, HOME=str(home)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "jobqueue: cannot read the input or write the output: Bad file descriptor\n"


def loaded(*arguments):
    code = (
        "import sys, json; sys.argv[1:] = sys.argv[1:]\n"
        "from jobqueue.__main__ import main\nstatus = main()\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={"PYTHONPATH": str(PACKAGE), "PATH": "", "HOME": "/nonexistent"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_is_shown_at_once():
    """It takes about 50 ms; the bound is for a busy machine."""
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([*CLI, "--help"], env=environment(), stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.4


def test_help_loads_neither_the_client_nor_the_server():
    found = loaded("--help")
    assert not found & {
        "jobqueue.client",
        "jobqueue.settings",
        "msgspec",
        "tornado",
        "asyncio",
        "ssl",
        "logging",
    }


def test_a_command_of_the_client_does_not_load_the_server():
    found = loaded("queues", "--url", "http://127.0.0.1:1")
    assert "jobqueue.client.socket_transport" in found
    assert not found & {
        "jobqueue.core",
        "jobqueue.engine",
        "jobqueue.settings",
        "tornado",
        "asyncio",
        "prometheus_client",
    }
