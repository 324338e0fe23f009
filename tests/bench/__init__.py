"""The benchmarks: `./scripts/bench.sh [names] [--quick] [--write]`.

Each module is one benchmark: its docstring says what it measures and how, `run(quick)` answers a `Report`.
What they assert is sanity (order kept, no errors, slots shrink), never speed: goals are shown, not enforced.
"""
