"""A real server for tests: a process of its own, on a port that is free."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from jobqueue.client import AsyncClient, Client, Request, Response
from jobqueue.client.address import address_of
from jobqueue.client.asyncio_transport import AsyncioTransport
from jobqueue.client.http import AsyncStreamed
from jobqueue.testing.requirements import check_server

_STARTED: Final = re.compile(rb" on (http://127\.0\.0\.1:\d+) ")
# Seconds in which it must have started; in which it must have ended after a signal.
_START: Final = 60.0
_END: Final = 10.0
_CONNECTIONS: Final = 100
_PACKAGES: Final = Path(__file__).parents[2]


class _Unpooled:
    """An `AsyncTransport` that keeps no connection: the event loop of a test may end at any time."""

    def __init__(self, url: str) -> None:
        self._transport = AsyncioTransport(address_of(url), None, _CONNECTIONS)

    async def send(self, request: Request) -> Response:
        try:
            return await self._transport.send(request)
        finally:
            await self._transport.close()

    async def stream(self, request: Request) -> AsyncStreamed:
        return await self._transport.stream(request)

    async def close(self) -> None:
        await self._transport.close()


class RunningServer:
    """A server that keeps its jobs in memory. A context manager.

    `settings` are those of the server, such as `max_attempts=1`. `url` is its address, `client` and `aclient`
    are clients of it. Raises `RuntimeError` with its log if it does not start.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        check_server()
        given = {"host": "127.0.0.1", "port": 0, "access_log": "off", **settings}
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("JOBQUEUE_")
        }
        self._environment |= {f"JOBQUEUE_{name.upper()}": _text(value) for name, value in given.items()}
        path = [str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment["PYTHONPATH"] = os.pathsep.join(path)
        self.token: str | None = settings.get("access_token")

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()  # it is closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "jobqueue", "serve"],
            env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log,
        )  # fmt: skip
        try:
            self.url = self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.client = Client(self.url, token=self.token)
        self.aclient = AsyncClient(self.url, token=self.token, transport=_Unpooled(self.url))
        return self

    def _wait(self) -> str:
        end = time.monotonic() + _START
        while True:
            has_ended = self._process.poll() is not None
            log = os.pread(self._log.fileno(), 1 << 16, 0)
            if found := _STARTED.search(log):
                return found[1].decode()
            if has_ended or time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{log.decode(errors='replace')}")
            time.sleep(0.01)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (client := vars(self).get("client")) is not None:
            client.close()
        self._process.terminate()
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __repr__(self) -> str:
        return f"<Server at {vars(self).get('url', 'no address')}>"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
