"""`jobqueue completion`: a script that completes commands, options and queues in a shell."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterable, Iterator
from typing import Final

from jobqueue.cli.arguments import Parser
from jobqueue.cli.commands import COMMANDS, Verb
from jobqueue.cli.context import ACTIONS as CONTEXT_ACTIONS
from jobqueue.cli.job import ACTIONS as JOB_ACTIONS
from jobqueue.cli.output import put
from jobqueue.cli.schedules import ACTIONS as SCHEDULE_ACTIONS

_QUEUES: Final = "jobqueue queues --names 2>/dev/null"
_SHELLS: Final = ("bash", "zsh", "fish")
# Commands with an argument that is one of some words: its place, and the words.
_ACTIONS: Final[dict[str, tuple[int, Iterable[str]]]] = {
    "completion": (1, _SHELLS),
    "context": (1, CONTEXT_ACTIONS),
    "job": (2, JOB_ACTIONS),
    "journal": (1, ("verify", "repair", "dump", "backup")),
    "schedules": (1, SCHEDULE_ACTIONS),
}
# Commands whose first argument is a queue.
_OF_A_QUEUE: Final = ("export", "pause", "queues", "resume", "set")


def declare(parser: Parser) -> None:
    parser.epilog = 'bash, zsh: eval "$(jobqueue completion bash)"; fish: jobqueue completion fish | source'
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def run(given: Namespace) -> int:
    put({"bash": _bash, "zsh": _zsh, "fish": _fish}[given.shell]())
    return 0


def options_of(name: str) -> Iterator[argparse.Action]:
    """Yields the options of a command."""
    from jobqueue.cli.main import parser_of

    # argparse has no other way to list them.
    yield from (action for action in parser_of(COMMANDS[name])._actions if action.option_strings)


def _words(name: str) -> str:
    return " ".join(text for action in options_of(name) for text in action.option_strings)


def _bash() -> str:
    cases = "".join(f'        {name}) words="{_words(name)}" ;;\n' for name in COMMANDS)
    more = "".join(
        f"            '{1 + place} {name}') more='{' '.join(words)}' ;;\n"
        for name, (place, words) in _ACTIONS.items()
    )
    queues = "|".join(f"'2 {name}'" for name in _OF_A_QUEUE)
    return f"""# Completion of jobqueue for bash: eval "$(jobqueue completion bash)"
_jobqueue() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words='' more=''
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(COMMANDS)} --help --version" -- "$word"))
        return
    fi
    case "$before" in
        -q|--queue|--queues|--to) COMPREPLY=($(compgen -W "$({_QUEUES})" -- "$word")); return ;;
        -f|--file|--ca|--cert|--data|--tls-cert|--tls-key|--tls-client-ca|--tokens-file)
            COMPREPLY=($(compgen -f -- "$word")); return ;;
    esac
    case "${{COMP_WORDS[1]}}" in
{cases}    esac
    if [ "${{word#-}}" = "$word" ]; then
        case "$COMP_CWORD ${{COMP_WORDS[1]}}" in
            {queues}) more="$({_QUEUES})" ;;
{more}        esac
        if [ -n "$more" ]; then COMPREPLY=($(compgen -W "$more" -- "$word")); return; fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _jobqueue jobqueue
"""


def _zsh() -> str:
    return "autoload -U +X compinit && compinit -i\nautoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    lines = [
        "# Completion of jobqueue for fish: jobqueue completion fish | source",
        "complete -c jobqueue -f",
    ]
    for name, command in COMMANDS.items():
        lines.append(f"complete -c jobqueue -n __fish_use_subcommand -a {name} -d {_quoted(command.summary)}")
        here = f"complete -c jobqueue -n '__fish_seen_subcommand_from {name}'"
        if name in _OF_A_QUEUE:
            lines.append(f"{here} -a '({_QUEUES})'")
        if name in _ACTIONS:
            lines.append(f"{here} -a '{' '.join(_ACTIONS[name][1])}'")
        for action in options_of(name):
            flags = [f"-s {text[1:]}" for text in action.option_strings if len(text) == 2]
            flags += [f"-l {text[2:]}" for text in action.option_strings if text.startswith("--")]
            takes = "" if action.nargs == 0 else " -r"
            if {"--queue", "--queues", "--to"}.intersection(action.option_strings):
                takes += f" -a '({_QUEUES})'"
            text = (action.help or "").replace("%%", "%")
            lines.append(f"{here} {' '.join(flags)}{takes} -d {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


COMPLETION: Final = Verb(declare, run)
