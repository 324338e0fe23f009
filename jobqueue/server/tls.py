"""TLS: the certificate that the server shows, and which clients it wants one of."""

import ssl

from jobqueue.errors import SettingError
from jobqueue.settings import Settings

# How long a handshake may take, in seconds.
HANDSHAKE = 10.0


class Tls:
    """`context` is for connections from now on. Raises `SettingError` where a file is not good."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.context = self._read()

    def reload(self) -> None:
        """Reads the files anew. Raises `SettingError`, and then all is as it was."""
        self.context = self._read()

    def _read(self) -> ssl.SSLContext | None:
        """None: there is no certificate, so no TLS."""
        cert, key, ca = self._settings.tls_cert, self._settings.tls_key, self._settings.tls_client_ca
        if cert is None:
            if key is not None or ca is not None:
                raise SettingError("JOBQUEUE_TLS_KEY and _TLS_CLIENT_CA need JOBQUEUE_TLS_CERT")
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # A key that wants a password would ask for it on the terminal.
            context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError) as bad:
            with_key = "" if key is None else f", _TLS_KEY={key}"
            raise SettingError(f"JOBQUEUE_TLS_CERT={cert}{with_key}: {_said(bad)}") from None
        if ca is not None:
            try:
                context.load_verify_locations(ca)
            except OSError as bad:
                raise SettingError(f"JOBQUEUE_TLS_CLIENT_CA={ca}: {_said(bad)}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _said(bad: Exception) -> str:
    if isinstance(bad, ssl.SSLError):
        return bad.reason or "no certificate, or no key, in PEM"
    return getattr(bad, "strerror", None) or str(bad)
