"""Lifecycles of several servers in the same run, interleaved round by round: put in, take under a lease, finish, a
request each; closed loop, the same payload, the same connections, driven by the same generator."""

from collections.abc import Callable
from typing import NamedTuple

from tests.bench import processes
from tests.bench.client import lifecycle_script
from tests.bench.processes import Load, Process
from tests.bench.report import check, how_many

PAYLOAD = 100
# How it is talked to, and the server.
Subject = tuple[str, Process]


class Rounds(NamedTuple):
    """`loads`: by name and number of connections, one for each round of `seconds`."""

    count: int
    seconds: float
    connections: tuple[int, ...]
    loads: dict[tuple[str, int], list[Load]]

    def of(self, connections: int) -> dict[str, list[Load]]:
        return {name: loads for (name, count), loads in self.loads.items() if count == connections}

    def against(self, connections: int) -> Callable[[str, str], list[float]]:
        """Returns a function of two names: the rate of the first one as a multiple of the second one's, round by
        round."""
        found = self.of(connections)

        def ratios(name: str, other: str) -> list[float]:
            return [mine.rate / theirs.rate for mine, theirs in zip(found[name], found[other], strict=True)]

        return ratios

    def caption(self, connections: int) -> str:
        return (
            f"{how_many(connections, 'connection')}, {how_many(self.count, 'interleaved round')} of "
            f"{self.seconds:g} s: median (least–most); ratios round by round"
        )


def beside(subjects: dict[str, Subject], quick: bool, warm: float) -> Rounds:
    """`warm`: seconds before the first round; ours then forgets a finished job with each new one."""
    rounds = Rounds(1, 1, (1, 8), {}) if quick else Rounds(7, 3, (1, 64), {})
    if not quick:
        for subject in subjects.values():
            load(subject, 64, warm)
    for _ in range(rounds.count):
        for connections in rounds.connections:
            for name, subject in subjects.items():
                found = load(subject, connections, rounds.seconds)
                rounds.loads.setdefault((name, connections), []).append(found)
    return rounds


def load(subject: Subject, connections: int, seconds: float) -> Load:
    protocol, process = subject
    what = lifecycle_script(PAYLOAD) if protocol == "http" else PAYLOAD
    found = processes.load(protocol, process, connections, seconds, what)
    check(found.lifecycles > 0, f"{protocol}: no lifecycle in {seconds} s")
    return found
