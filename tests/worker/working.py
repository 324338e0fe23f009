"""A worker as a program of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


class Working:
    """A worker as a program of its own, of the jobs of `shop.py` or of another module."""

    def __init__(self, url: str, queues: str, *options: str, module: str = "shop") -> None:
        package = Path(__import__("jobqueue").__file__).parents[1]
        environment = {**os.environ, "JOBQUEUE_URL": url, "PYTHONPATH": f"{package}", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobqueue", "work", f"{module}:jobs", "-q", queues, *options],
            cwd=HERE, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = 30) -> tuple[int, str]:
        """Waits for its end. Returns its exit status and its log."""
        _, log = self.process.communicate(timeout=seconds)
        return self.process.returncode, log
