"""`python -m tests.bench.fresh MODULE:FUNCTION JSON` prints the result of the function; see `processes.fresh`."""

import importlib
import json
import sys


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    call = getattr(importlib.import_module(f"tests.bench.{module}"), function)
    print(json.dumps(call(**json.loads(sys.argv[2]))))


if __name__ == "__main__":
    main()
