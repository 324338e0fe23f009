"""`./scripts/crash.sh [scenes] [--rounds N] [--short]`: prints each promise with the run that shows it."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bench.report import Skip
from tests.crash import power, scenes
from tests.crash.scenes import Outcome
from tests.crash.server import Broken


class Scene(NamedTuple):
    """`rounds`: in the long run and in the short run."""

    promise: str
    play: Callable[..., Outcome]
    rounds: tuple[int, int]
    settings: dict[str, object]


SCENES = {
    "kill": Scene("kill -9 under load loses nothing acknowledged, brings nothing concluded back",
                  scenes.kill_9, (200, 8), {}),
    "kill-os": Scene("the same with JOBQUEUE_SYNC=os", scenes.kill_9, (50, 3), {"sync": "os"}),
    "kill-leases": Scene("the same with JOBQUEUE_SYNC_LEASES=false", scenes.kill_9, (50, 3), {"sync_leases": "false"}),
    "schedules": Scene("kill -9 while schedules are due: each instant gives exactly one job", scenes.schedules, (60, 4), {}),
    "power": Scene("a power cut that loses any part of what was not synced; the same holds", power.cut, (60, 4), {}),
    "power-leases": Scene("the same with JOBQUEUE_SYNC_LEASES=false, but for the last lease of a job", power.cut, (60, 4), {"sync_leases": "false"}),
    "stop": Scene("SIGTERM under load: workers finish what they have", scenes.stop_and_go, (20, 2), {}),
    "frozen": Scene("SIGSTOP and SIGCONT change nothing", scenes.frozen, (5, 1), {}),
    "damage": Scene("a truncated file or flipped bits: refused, and the damage is named", scenes.damage, (100, 8), {}),
    "full": Scene("a full disk: 507 for enqueue, conclude works, recovery without a restart", scenes.full_disk, (5, 1), {}),
    "eio": Scene("a failed write or sync: not acknowledged, exit status 74, a clean start", scenes.failing_sync, (20, 2), {}),
    "slow": Scene("slow syncs delay no request that changes nothing", scenes.slow_sync, (5, 1), {}),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="crash.sh")
    parser.add_argument("scenes", nargs="*", choices=[*SCENES, []], metavar="scene", help=", ".join(SCENES))
    parser.add_argument("--rounds", type=int, help="rounds of each scene; default: as in the table")
    parser.add_argument("--short", action="store_true", help="a few rounds of each scene, as in CI")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    lines = []
    failed = 0
    for name in options.scenes or SCENES:
        scene = SCENES[name]
        rounds = options.rounds or scene.rounds[options.short]
        started = time.monotonic()
        print(f"{name}: {rounds} rounds … ", file=sys.stderr, end="", flush=True)
        with tempfile.TemporaryDirectory(prefix="jobqueue-crash-", dir="/var/tmp") as scratch:
            try:
                done = scene.play(Path(scratch) / "data", rounds, options.seed, **scene.settings)
                shown = f"{done.rounds} | {done.made:,} | {done.concluded:,} | holds" + (
                    f": {done.note}" if done.note else ""
                )
            except Skip as missing:
                shown = f"– | – | – | skipped: {missing}"
            except Broken as broken:
                failed += 1
                shown = "– | – | – | **FAILED**"
                print(f"FAILED\n{broken}", file=sys.stderr)
        print(f"{time.monotonic() - started:.1f} s", file=sys.stderr)
        lines.append(f"| {scene.promise} | `./scripts/crash.sh {name}` | {shown} |")
    print("| promise | the run that shows it | rounds | enqueues acknowledged | conclusions acknowledged | |")
    print("|---|---|--:|--:|--:|---|")
    print(*lines, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
