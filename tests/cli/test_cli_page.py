"""Every line of shell in docs/cli.md is run, in order; and its table has every command."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from running import CLI, Program, environment

from jobqueue.cli.commands import COMMANDS
from jobqueue.client import Client
from jobqueue.client.encoding import BATCH, BATCH_BYTES

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture
def shell(url, home):
    """The environment of a shell in which `jobqueue` is a command."""
    command = home / "bin" / "jobqueue"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in CLI) + ' "$@"\n')
    command.chmod(0o755)
    variables = environment(
        JOBQUEUE_URL=url, HOME=str(home), XDG_CONFIG_HOME="", TOKEN="secret-secret-secret"
    )
    variables["PATH"] = f"{command.parent}:{variables['PATH']}"
    return variables


def test_every_block_can_be_pasted(program, url, home, shell):
    assert len(LINES) > 25
    for block in BLOCKS:
        if block.startswith("jobqueue serve"):
            line = block.replace("8080", "0").replace("jobqueue", "exec " + shlex.join(CLI))
            with Program(("sh", "-c", line)) as started:
                assert started.stop() == 0
            continue
        # A line that fails ends the block, and is the last one that -v shows.
        pasted = "set -euv\n" + block.replace("http://localhost:8080", url)
        done = subprocess.run(
            ["bash", "-c", pasted],
            env=shell,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        words = [said for said in done.stderr.splitlines() if said.startswith("jobqueue: ")]
        expected = ("JOBQUEUE_URL is set", "after 10ms")
        assert not [said for said in words if not any(part in said for part in expected)], (block, words)


def test_the_first_steps_do_what_they_say(program, url, home, shell):
    said = [
        subprocess.run(
            ["bash", "-c", line], env=shell, cwd=home, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for line in LINES[1:5]
    ]
    made = json.loads(said[0])["id"]
    with Client(url) as client:
        job = client.jobs.get(made)
    assert (job.status, job.payload, job.result) == (
        "concluded",
        {"to": "ada@example.com", "copies": 2},
        '{"to":"ada@example.com","copies":2}',
    )
    assert "default" in [json.loads(line)["name"] for line in said[2].splitlines()]
    assert made in [json.loads(line)["id"] for line in said[3].splitlines()]


def test_the_page_says_how_many_lines_a_request_takes():
    assert f"up to {BATCH:,} lines and {BATCH_BYTES >> 10} KiB" in " ".join(PAGE.split())


def test_the_table_has_every_command_and_no_other():
    table = PAGE.partition("| command | what it does |")[2].partition("\n\n")[0]
    named = [
        name
        for row in table.splitlines()
        for name in re.findall(r"`([\w-]+)`", row.split("|")[1] if "|" in row else "")
    ]
    assert sorted(named) == sorted(COMMANDS)
