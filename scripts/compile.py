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
    "core/admin",
    "core/admission",
    "core/counts",
    "core/dedup",
    "core/edit",
    "core/forgetting",
    "core/job_index",
    "core/key_group",
    "core/lane",
    "core/leasing",
    "core/matching",
    "core/named_queue",
    "core/policy",
    "core/queue",
    "core/retention",
    "core/state",
    "core/timers",
    "core/transfer",
    "core/unique_keys",
    "core/waiters",
    "histogram",
    "storage/row_builder",
    "clock",
    "storage/loader",
    "engine/commit",
    "engine/driver",
    "engine/local",
    "engine/tokens",
    "server/http1/connection",
    "server/http1/front",
    "server/http1/front_state",
    "server/http1/head_cache",
    "server/log",
    "server/http1/request_parser",
    "server/http1/response_writer",
    "web/access/identity",
    "web/access/browser_policy",
    "web/access/authorized_engine",
    "web/context",
    "web/dispatch",
    "web/http",
    "web/request_metrics",
    "web/operations/enqueue",
    "web/operations/jobs",
    "web/operations/leases",
    "web/operations/queues",
    "web/operations/replies",
    "web/readers/decoder",
    "web/readers/limits",
    "web/readers/fields",
    "web/readers/job_error",
    "web/readers/consume",
    "web/readers/json_text",
    "web/readers/produce",
    "web/readers/admin",
    "web/writers/encoder",
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
