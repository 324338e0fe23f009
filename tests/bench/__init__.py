"""The benchmarks: `./scripts/bench.sh [names] [--quick] [--write]`.

Each module is one benchmark: its docstring describes what it measures and how, and `run(quick)` returns a `Report`.
The benchmarks check that the work was done correctly (order kept, no errors, slots shrink), never its speed: goals
are shown and not enforced.
"""
