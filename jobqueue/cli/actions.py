"""Actions of a command that has several, such as `jobqueue schedules put`: what each of them takes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jobqueue.cli.arguments import UsageError, is_given


class Action(NamedTuple):
    """What runs an action, and which arguments and options it takes of those that not every action takes."""

    run: Callable[[Namespace], int]
    takes: tuple[str, ...] = ()


def refuse_others(
    given: Namespace, command: str, action: Action, arguments: Sequence[str], options: Sequence[str]
) -> None:
    """Raises `UsageError` for those of `arguments` and `options` that were given and would have no effect.

    `command` has the name of the action, such as `schedules put`.
    """
    for name in (*arguments, *options):
        if name in action.takes or not is_given(given, name):
            continue
        value = getattr(given, name)
        if name in options:
            shown = f"--{name.replace('_', '-')}"
        else:
            shown = str(value[0] if isinstance(value, list) else value)
        raise UsageError(
            f"{command} takes no {shown}; `jobqueue {command.partition(' ')[0]} --help` shows what it takes"
        )
