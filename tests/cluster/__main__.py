"""`./scripts/cluster.sh [scenes] [--rounds N] [--short]`: servers on one PostgreSQL database, and a table of what was
done to them and what held."""

import argparse
import sys
import time
import traceback
from collections.abc import Callable

from tests.cluster.crew import servers
from tests.cluster.long_scenes import LONG_SCENES, Scene
from tests.cluster.scenes import SCENES
from tests.cluster.shard_scenes import FAKETIME, MORE_SHARD_SCENES, SHARD_SCENES, SHARDS


def _with_three(scene: Callable[..., str], shards: int = 1) -> Callable[[int], str]:
    def run(rounds: int) -> str:
        with servers(3, shards) as crew:
            return scene(crew, rounds)

    return run


def main() -> int:
    scenes = {
        name: Scene(promise, _with_three(scene), long, short)
        for name, (promise, scene, long, short) in SCENES.items()
    }
    for name, (promise, run, long, short) in (SHARD_SCENES | MORE_SHARD_SCENES).items():
        scenes[name] = Scene(promise, _with_three(run, SHARDS), long, short)
    scenes |= LONG_SCENES
    if not FAKETIME:
        scenes["shards-clock"] = scenes["shards-clock"]._replace(missing=lambda: "faketime is not installed")
    parser = argparse.ArgumentParser(prog="cluster.sh")
    parser.add_argument("scenes", nargs="*", choices=[*scenes, []], metavar="scene", help=", ".join(scenes))
    parser.add_argument(
        "--rounds", type=int, help="rounds of each scene, or seconds or jobs; default: as in the table"
    )
    parser.add_argument("--short", action="store_true", help="little of each scene, as in CI")
    options = parser.parse_args()
    lines, failed = [], 0
    for name in options.scenes or scenes:
        scene = scenes[name]
        rounds = options.rounds or (scene.short if options.short else scene.long)
        if (why := scene.missing()) is not None:
            print(f"{name}: left out, {why}", file=sys.stderr)
            lines.append(f"| {scene.promise} | `./scripts/cluster.sh {name}` | | left out: {why} |")
            continue
        began = time.monotonic()
        print(f"{name}: {rounds:,} {scene.unit} … ", file=sys.stderr, end="", flush=True)
        try:
            shown = f"holds: {scene.run(rounds)}"
        except Exception:
            traceback.print_exc()
            shown, failed = "**FAILED**", failed + 1
        print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
        lines.append(
            f"| {scene.promise} | `./scripts/cluster.sh {name}` | {rounds:,} {scene.unit} | {shown} |"
        )
    print("| promise | the run that shows it | length | |", "|---|---|--:|---|", *lines, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
