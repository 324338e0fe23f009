"""Tls: the server's certificate, and the authority that clients' certificates must come from."""

import ssl

from jobqueue.errors import SettingError
from jobqueue.settings import Settings

# Seconds that a handshake may take.
HANDSHAKE = 10.0


class Tls:
    """`context`: for new connections; None: no certificate is set, so connections are plain. Raises
    `SettingError` if a file cannot be used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.context = self.read()

    def read(self) -> ssl.SSLContext | None:
        """Reads the files, and returns the context to use from now on. May be called on any thread. Raises
        `SettingError`."""
        cert, key, ca = self._settings.tls_cert, self._settings.tls_key, self._settings.tls_client_ca
        if cert is None:
            if key is not None or ca is not None:
                raise SettingError("JOBQUEUE_TLS_KEY and _TLS_CLIENT_CA need JOBQUEUE_TLS_CERT")
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without `password`, an encrypted key would prompt on the terminal.
            context.load_cert_chain(cert, key, password="")
        except (OSError, ValueError) as bad:
            with_key = "" if key is None else f", _TLS_KEY={key}"
            raise SettingError(f"JOBQUEUE_TLS_CERT={cert}{with_key}: {_reason(bad)}") from None
        if ca is not None:
            try:
                context.load_verify_locations(ca)
            except OSError as bad:
                raise SettingError(f"JOBQUEUE_TLS_CLIENT_CA={ca}: {_reason(bad)}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _reason(bad: Exception) -> str:
    if isinstance(bad, ssl.SSLError):
        return bad.reason or "not a certificate and key in PEM format"
    return getattr(bad, "strerror", None) or str(bad)
