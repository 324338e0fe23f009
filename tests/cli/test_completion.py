"""Completion, in the shells themselves."""

import os
import pty
import select
import shutil
import signal
import subprocess

import pytest
from running import CLI, environment

from jobqueue.cli.commands import COMMANDS
from jobqueue.cli.completion import options_of


def script(shell):
    done = subprocess.run(
        [*CLI, "completion", shell], env=environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def command_in(home):
    """Returns a folder for the PATH with the command `jobqueue`."""
    command = home / "bin" / "jobqueue"
    command.parent.mkdir(exist_ok=True)
    command.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in CLI) + ' "$@"\n')
    command.chmod(0o755)
    return command.parent


def complete_in_bash(words, home, url):
    """What bash offers after these words."""
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        script("bash")
        + f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _jobqueue; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    variables = environment(JOBQUEUE_URL=url, HOME=str(home))
    variables["PATH"] = f"{command_in(home)}:{variables['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", code], env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_queues(cli, home, url):
    cli("enqueue", "x", "-q", "completed")
    assert complete_in_bash(["jobqueue", "enq"], home, url) == ["enqueue"]
    assert set(complete_in_bash(["jobqueue", ""], home, url)) >= set(COMMANDS)
    assert complete_in_bash(["jobqueue", "enqueue", "x", "--uni"], home, url) == [
        "--unique-key",
        "--unique-while",
    ]
    assert complete_in_bash(["jobqueue", "jobs", "-q", "comp"], home, url) == ["completed"]
    assert complete_in_bash(["jobqueue", "pause", "comp"], home, url) == ["completed"]
    assert complete_in_bash(["jobqueue", "context", ""], home, url) == ["add", "use", "rm", "ls"]
    assert complete_in_bash(["jobqueue", "job", "1", "e"], home, url) == ["explain", "edit"]
    assert complete_in_bash(["jobqueue", "move", "-q", "x", "--to", "comp"], home, url) == ["completed"]
    assert complete_in_bash(["jobqueue", "serve", "--por"], home, url) == ["--port"]


def complete_in_zsh(typed, home, url):
    """What the line is in zsh after TAB."""
    pid, screen = pty.fork()
    if pid == 0:
        try:
            variables = environment(JOBQUEUE_URL=url, HOME=str(home), TERM="dumb")
            variables["PATH"] = f"{command_in(home)}:{variables['PATH']}"
            os.execvpe("zsh", ["zsh", "-f", "-i"], variables)
        finally:
            os._exit(127)
    seen = ""

    def read_until(mark):
        nonlocal seen
        while mark not in seen:
            assert select.select([screen], [], [], 30)[0], seen
            seen += os.read(screen, 65536).decode()
        seen = seen.rpartition(mark)[2]

    try:
        os.write(screen, b"PS1=; eval \"$(jobqueue completion zsh)\"; echo rea''dy\n")
        read_until("ready")
        # zsh echoes the line as it is after TAB; Enter runs it, so it is made a comment that echoes.
        os.write(screen, f"{typed}\t".encode())
        os.write(screen, b"\x01echo line: \x05\n")  # to the beginning, and to the end
        read_until("\nline: ")
        while "\n" not in seen:
            seen += os.read(screen, 65536).decode()
        return seen.partition("\n")[0].strip()
    finally:
        os.close(screen)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_commands_options_and_queues(cli, home, url):
    cli("enqueue", "x", "-q", "completed")
    assert complete_in_zsh("jobqueue enq", home, url) == "jobqueue enqueue"
    assert complete_in_zsh("jobqueue jobs -q comp", home, url) == "jobqueue jobs -q completed"
    assert complete_in_zsh("jobqueue serve --por", home, url) == "jobqueue serve --port"
    assert complete_in_zsh("jobqueue job 1 exp", home, url) == "jobqueue job 1 explain"


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_commands_and_options():
    code = script("fish") + '\ncomplete -C "jobqueue enq"\ncomplete -C "jobqueue serve --por"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "enqueue" in done.stdout
    assert "--port" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_of_every_command_is_in_the_script(shell):
    text = script(shell)
    for name in COMMANDS:
        for action in options_of(name):
            for option in action.option_strings:
                if option.startswith("--"):
                    assert (f"-l {option[2:]} " if shell == "fish" else f"{option}") in text, (name, option)
