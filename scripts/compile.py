"""Copies the package, and has mypyc make machine code there of the modules that every request passes through.

    python scripts/compile.py FOLDER

makes FOLDER/jobqueue. It needs a C compiler, the headers of this Python, and what scripts/requirements.txt
pins. The sources stay what is read, changed, and served where there is no compiler.

What means something else in a compiled module, or fails there: a struct of msgspec loses what stands in the
brackets behind its name; a slice of bytes that ends before it begins is an error; a generator expression that
is handed to a function is a list, made whole; annotations are checked when it runs, and a stub may be wrong.
So the whole suite has to pass on the copy: `scripts/test.sh --all --compiled`.
"""

import os
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "jobqueue"
# A compiled class can only inherit from compiled ones.
MODULES = [
    "core/changes",
    "core/control",
    "core/histogram",
    "core/intake",
    "core/lane",
    "core/line",
    "core/moves",
    "core/named",
    "core/pages",
    "core/policy",
    "core/queue",
    "core/registry",
    "core/retention",
    "core/tally",
    "core/timers",
    "core/unique",
    "core/waiters",
    "engine/book",
    "engine/clock",
    "engine/journal",
    "engine/memory",
    "engine/ticking",
    "engine/tokens",
    "server/connection",
    "server/fast_front",
    "server/known_heads",
    "server/log",
    "server/reading",
    "server/sending",
    "web/access/auth",
    "web/access/guard",
    "web/access/scope",
    "web/api",
    "web/http",
    "web/meter",
    "web/operations",
    "web/parsing/call",
    "web/parsing/checks",
    "web/parsing/fields",
    "web/parsing/holding",
    "web/parsing/json_text",
    "web/parsing/making",
    "web/parsing/schema",
    "web/rendering/render",
]


def compile_to(folder: Path) -> None:
    from mypyc.build import mypycify
    from setuptools import setup

    shutil.copytree(PACKAGE, folder / "jobqueue", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(folder)
    # More than -O1 takes twice as long and makes nothing faster that was measured.
    extensions = mypycify(
        ["--cache-dir=/dev/null", *(f"jobqueue/{name}.py" for name in MODULES)],
        opt_level="1", debug_level="0", target_dir="build",
    )  # fmt: skip
    for extension in extensions:  # looking for what -Wall warns of takes as long as all else
        extension.extra_compile_args.append("-Wno-all")
    how = ["--quiet", "build_ext", "--inplace", "--parallel=2"]
    setup(name="jobqueue", packages=[], ext_modules=extensions, script_args=how)
    shutil.rmtree("build")


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]))
