"""Copies the package, and has mypyc make machine code there of the modules that every request passes through.

    python scripts/compile.py FOLDER [DESCRIPTOR]

makes FOLDER/jobqueue, and writes how far it is to the open file DESCRIPTOR. It needs a C compiler, the
headers of this Python, and what scripts/requirements.txt pins. The sources stay what is read, changed, and
served where there is no compiler.

What means something else in a compiled module, or fails there: a struct of msgspec loses what stands in the
brackets behind its name; a slice of bytes that ends before it begins is an error; a generator expression that
is handed to a function is a list, made whole; annotations are checked when it runs, and a stub may be wrong.
A global name that is not `Final` is looked up in a dict each time it is used.
So the whole suite has to pass on the copy: `scripts/test.sh --all --compiled`.
"""

import os
import shutil
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "jobqueue"
# Seconds.
_TELL_EVERY = 5.0
# A compiled class can only inherit from compiled ones.
MODULES = [
    "cluster/codec",
    "cluster/engine",
    "cluster/outcome",
    "cluster/peer",
    "cluster/schedules",
    "cluster/shard",
    "cluster/serving",
    "core/admin",
    "core/admission",
    "core/bulk",
    "core/clock_steps",
    "core/counts",
    "core/dedup",
    "core/edit",
    "core/fair_turns",
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
    "job",
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
    "server/http1/read_ahead",
    "server/http1/request_parser",
    "server/http1/response_writer",
    "web/access/identity",
    "web/access/browser_policy",
    "web/access/authorized_engine",
    "web/bytes_in_flight",
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
    "web/readers/job_error",
    "web/readers/consume",
    "web/readers/json_text",
    "web/readers/produce",
    "web/readers/admin",
    "web/schema/kinds",
    "web/sqs/call",
    "web/sqs/routes",
    "web/sqs/json_protocol",
    "web/sqs/message_attributes",
    "web/sqs/names",
    "web/sqs/receipts",
    "web/sqs/receive",
    "web/sqs/send",
    "web/writers/answer_size",
    "web/writers/encoder",
]


class Progress:
    """Writes what is done now, and every few seconds how long it has taken."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._step = ""
        if descriptor is not None:
            threading.Thread(target=self._tell_time, daemon=True).start()

    def step(self, text: str) -> None:
        self._step = text
        self._write(text)

    def _tell_time(self) -> None:
        started = time.monotonic()
        while True:
            time.sleep(_TELL_EVERY)
            self._write(f"{self._step}: {time.monotonic() - started:.0f} s")

    def _write(self, text: str) -> None:
        if self._descriptor is not None and text:
            with suppress(OSError):
                os.write(self._descriptor, f"{text}\n".encode())


def compile_to(folder: Path, progress: Progress) -> None:
    from mypyc.build import mypycify
    from setuptools import setup

    shutil.copytree(PACKAGE, folder / "jobqueue", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(folder)
    progress.step(f"translating {len(MODULES)} modules to C")
    # More than -O1 takes twice as long and makes nothing faster that was measured.
    extensions = mypycify(
        ["--cache-dir=/dev/null", *(f"jobqueue/{name}.py" for name in MODULES)],
        opt_level="1",
        debug_level="0",
        target_dir="build",
    )
    for extension in extensions:  # looking for what -Wall warns of takes as long as all else
        extension.extra_compile_args.append("-Wno-all")
    progress.step("compiling the C code")
    how = ["--quiet", "build_ext", "--inplace", "--parallel=2"]
    setup(name="jobqueue", packages=[], ext_modules=extensions, script_args=how)
    shutil.rmtree("build")


if __name__ == "__main__":
    compile_to(Path(sys.argv[1]), Progress(int(sys.argv[2]) if len(sys.argv) > 2 else None))
