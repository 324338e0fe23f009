"""`./scripts/cluster.sh [scenes] [--rounds N] [--short]`: three servers on one PostgreSQL database, and a table of what
was done to them and what held."""

import argparse
import sys
import time
import traceback

from tests.cluster.crew import Crew, Postgres
from tests.cluster.scenes import SCENES


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster.sh")
    parser.add_argument("scenes", nargs="*", choices=[*SCENES, []], metavar="scene", help=", ".join(SCENES))
    parser.add_argument("--rounds", type=int, help="rounds of each scene; default: as in the table")
    parser.add_argument("--short", action="store_true", help="a few rounds of each scene, as in CI")
    options = parser.parse_args()
    lines, failed = [], 0
    for name in options.scenes or SCENES:
        promise, scene, long, short = SCENES[name]
        rounds = options.rounds or (short if options.short else long)
        began = time.monotonic()
        print(f"{name}: {rounds} rounds … ", file=sys.stderr, end="", flush=True)
        postgres = Postgres()
        crew = Crew(postgres, postgres.create_database())
        try:
            crew.start_all(3)
            shown = f"holds: {scene(crew, rounds)}"
        except Exception:
            traceback.print_exc()
            shown, failed = "**FAILED**", failed + 1
        finally:
            crew.end()
            postgres.remove()
        print(f"{time.monotonic() - began:.1f} s", file=sys.stderr)
        lines.append(f"| {promise} | `./scripts/cluster.sh {name}` | {rounds} | {shown} |")
    print("| promise | the run that shows it | rounds | |", "|---|---|--:|---|", *lines, sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
