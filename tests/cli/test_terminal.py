"""On a terminal a command prints tables, and asks before it changes many jobs."""

import os
import re
import shlex
import shutil
import subprocess

import pytest
from running import CLI, Program, environment, until


def test_a_terminal_gets_a_table_and_json_when_it_asks_for_it(cli, terminal):
    cli("enqueue", "x", "-q", "seen")
    status, shown = terminal("queues")
    assert (status, shown.startswith("QUEUE ")) == (0, True)
    status, shown = terminal("queues", "--json")
    assert (status, shown.startswith('{"name":')) == (0, True)


def test_a_long_list_is_cut_and_says_so(cli, terminal):
    cli("enqueue", "-f", "-", "-q", "long", input='{"type":"x"}\n' * 150)
    status, shown = terminal("jobs", "-q", "long")
    lines = shown.splitlines()
    assert (status, len(lines)) == (0, 102)
    assert "--limit" in lines[-1]
    assert len(terminal("jobs", "-q", "long", "--limit", "200")[1].splitlines()) == 151


def test_a_purge_asks_for_the_number(cli, terminal):
    cli("enqueue", "-f", "-", "-q", "asked", input='{"type":"x"}\n' * 12)
    status, shown = terminal("purge", "-q", "asked", "--all", typed="yes")
    assert (status, "nothing was changed" in shown) == (1, True)
    assert re.search(r"12 jobs, such as \d+, \d+", shown)
    assert cli("jobs", "-q", "asked", "--count").out == "12\n"
    status, shown = terminal("purge", "-q", "asked", "--all", typed="12")
    assert (status, shown.endswith("12 jobs removed\n")) == (0, True)
    assert cli("jobs", "-q", "asked", "--count").out == "0\n"


def test_the_live_screen_is_cut_to_the_terminal(cli, terminal):
    lines = "".join(f'{{"type":"x","queue":"q{number:02}-{"y" * 90}"}}\n' for number in range(30))
    cli("enqueue", "-f", "-", input=lines)
    status, shown = terminal("top", "--for", "10ms")
    assert status == 0
    assert shown.startswith("\x1b[2J\x1b[H")
    screen = shown.rpartition("\x1b[H")[2].replace("\x1b[K", "").replace("\x1b[J", "")
    assert len(screen.splitlines()) <= 24
    assert max(map(len, screen.splitlines())) <= 80


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_live_screen_fills_a_terminal_of_80_by_24(bare, home):
    with Program() as program:
        screen = screen_of_top(bare, f"http://127.0.0.1:{program.port}", home)
        program.stop()
    assert screen[0].startswith("jobqueue ")
    [head] = [line for line in screen if line.startswith("QUEUE ")]
    assert (head.split()[1:3], head.split()[-1]) == (["QUEUED", "RUNNING"], "WAITING")
    names = [line.split()[0] for line in screen if line.startswith("q")]
    assert [name[:9] for name in names] == [f"q{number:02}-custo" for number in range(18)]
    assert {name[-1] for name in names} == {"…"}
    assert (len(screen), screen[-1]) == (24, "")
    assert max(map(len, screen)) <= 80


def screen_of_top(bare, url, home):
    lines = "".join(f'{{"type":"x","queue":"q{number:02}-customer-reports"}}\n' for number in range(30))
    bare("enqueue", "-f", "-", "--url", url, input=lines)
    tmux = ["tmux", "-L", f"jobqueue-{os.getpid()}", "-f", "/dev/null"]
    variables = environment(JOBQUEUE_URL=url, HOME=str(home), TMUX_TMPDIR=str(home), TERM="xterm")

    def control(*arguments):
        return subprocess.run(
            [*tmux, *arguments], env=variables, capture_output=True, text=True, timeout=30, check=True
        ).stdout

    control("new-session", "-d", "-x", "80", "-y", "24", shlex.join([*CLI, "top"]))
    try:
        until(lambda: "q10" in control("capture-pane", "-p"), 30)
        return control("capture-pane", "-p").splitlines()
    finally:
        control("kill-server")
