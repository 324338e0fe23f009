"""`manage.py jobqueue_worker`: runs the tasks of a backend."""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.autoreload import get_child_arguments
from django.utils.module_loading import autodiscover_modules

from jobqueue.django.backend import JobQueueBackend
from jobqueue.django.tasks_api import task_backends
from jobqueue.worker import Worker
from jobqueue.worker.cli import USAGE, Supervisor, add_worker_options, end_now


class Command(BaseCommand):
    help = "Runs the tasks that a jobqueue server has for this project, until a signal."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--backend", default="default", help="name of the backend in TASKS (default)")
        add_worker_options(parser, queues=None)

    def handle(self, *arguments: Any, **given: Any) -> None:
        backend = task_backends[given["backend"]]
        if not isinstance(backend, JobQueueBackend):
            raise CommandError(f"TASKS[{given['backend']!r}] is not a jobqueue.django.JobQueueBackend")
        self._log(given["verbosity"])
        if given["processes"] > 1:
            sys.exit(Supervisor(given["processes"], [*get_child_arguments(), "--processes", "1"]).run())
        autodiscover_modules("tasks")
        queues = given["queues"].split(",") if given["queues"] else backend.queue_names
        try:
            worker = Worker(
                backend.jobs,
                [name for name in queues if name],
                concurrency=given["concurrency"],
                lease_for=given["lease_for"],
                grace=given["grace"],
                name=given["name"],
            )
        except ValueError as bad:
            raise CommandError(str(bad), returncode=USAGE) from None
        status = worker.run()
        end_now(status)
        sys.exit(status)

    def _log(self, verbosity: int) -> None:
        """Shows the lines of the worker, unless the project's LOGGING says what becomes of them."""
        logger = logging.getLogger("jobqueue")
        if logger.hasHandlers() or verbosity == 0:
            return
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
