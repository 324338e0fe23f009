"""Reload: reads certificates and access tokens again, on a thread, since a disk may not answer."""

import asyncio
import logging
import ssl
import threading
from contextlib import suppress

from jobqueue.errors import SettingError
from jobqueue.server.tls import Tls
from jobqueue.settings import Settings
from jobqueue.web.access.identity import Authenticator
from jobqueue.web.access.tokens import Token
from jobqueue.web.context import Context

_log = logging.getLogger("jobqueue")


class Reload:
    """A bad file changes nothing. Where there are no files, nothing happens but a line in the log."""

    def __init__(self, tls: Tls, auth: Authenticator[Context] | None, settings: Settings) -> None:
        self._tls = tls
        self._auth = auth
        self._has_files = settings.tokens_file is not None or settings.tls_cert is not None
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._again = False  # asked while it read: the files may have changed since

    def start(self) -> None:
        """Begins to read the files, and returns at once."""
        if not self._has_files:
            _log.info("nothing to reload: there is no file of access tokens and no certificate")
        elif self._reading:
            self._again = True
            _log.warning("the files of the last reload are still being read")
        else:
            self._reading = True
            threading.Thread(target=self._read, name="reload", daemon=True).start()

    def _read(self) -> None:
        failed: Exception | None = None
        context: ssl.SSLContext | None = None
        tokens: list[Token] = []
        try:
            context = self._tls.read()
            if self._auth is not None:
                tokens = self._auth.read()
        except Exception as bad:
            failed = bad
        with suppress(RuntimeError):  # the server has stopped meanwhile
            self._loop.call_soon_threadsafe(self._apply, failed, context, tokens)

    def _apply(self, failed: Exception | None, context: ssl.SSLContext | None, tokens: list[Token]) -> None:
        self._reading = False
        if isinstance(failed, SettingError):
            _log.error("not reloaded: %s", failed.detail)
        elif failed is not None:
            _log.error("not reloaded", exc_info=failed)
        else:
            self._tls.context = context
            if self._auth is not None:
                self._auth.reload(tokens)
            _log.info("reloaded; access tokens: %d", len(tokens))
        if self._again:
            self._again = False
            self.start()
