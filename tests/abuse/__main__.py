"""`./scripts/abuse.sh [names]`: runs the attacks in their long form, and prints a table: attack, what must hold,
measured, verdict. `--short`: as in the tests. `--front fast|tornado`: one front only."""

import argparse
import logging
import os
import sys
import time

from tests.abuse.attacks import ATTACKS
from tests.abuse.harness import Check, carry_out


def main() -> int:
    parser = argparse.ArgumentParser(prog="abuse.sh", epilog="; ".join(attack.name for attack in ATTACKS))
    parser.add_argument("names", nargs="*", help="parts of the names of attacks; default: all of them")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--front", choices=["fast", "tornado"])
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns about each socket that the server closes
    failed = 0
    rows: list[tuple[str, str, Check]] = []
    for attack in ATTACKS:
        if options.names and not any(name in attack.name for name in options.names):
            continue
        for front in attack.fronts:
            if options.front not in (None, front):
                continue
            print(f"{attack.name} ({front}) …", file=sys.stderr, end=" ", flush=True)
            started = time.monotonic()
            checks = carry_out(attack, front, 0.02 if options.short else 1.0)
            bad = sum(check.holds is False for check in checks)
            failed += bad
            rows += [(attack.name, front, check) for check in checks]
            print(f"{'holds' if not bad else 'FAILED'}, {time.monotonic() - started:.1f} s", file=sys.stderr)
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} processors\n")
    width = max((len(check.must) for _, _, check in rows), default=0)
    last = ""
    for name, front, check in rows:
        title = f"{name} ({front})"
        print(
            f"{title if title != last else '':36} {check.must:{width}}  {check.measured:45} {check.verdict}"
        )
        last = title
    skipped = sum(check.holds is None for _, _, check in rows)
    print(f"\n{len(rows)} figures: {failed} do not hold, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
