"""TLS between servers. Their certificates name what clients call, so nobody checks the names.

In its place the caller proves, inside of TLS, that it knows the secret of the server and sees that server's
own certificate. So nobody in between can have ended the TLS of both sides.
"""

import hmac
import ssl
from typing import Final, NamedTuple

PROOF: Final = 32  # bytes


class LinkTls(NamedTuple):
    """`accepting` and `calling`: contexts of both sides. `certificate`: of this server, in DER."""

    accepting: ssl.SSLContext
    calling: ssl.SSLContext
    certificate: bytes


def link_tls(cert: str, key: str | None) -> LinkTls:
    """Returns what a server with this certificate needs. The files can be read: its listener uses them."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(cert, key, password="")
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.check_hostname = False
    calling.verify_mode = ssl.CERT_NONE
    for context in (accepting, calling):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    with open(cert) as file:
        text = file.read()
    begin = text.index("-----BEGIN CERTIFICATE-----")
    end = text.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    return LinkTls(accepting, calling, ssl.PEM_cert_to_DER_cert(text[begin:end]))


def proof(secret: str, certificate: bytes) -> bytes:
    """Returns what a caller sends first to the server that has this secret."""
    return hmac.digest(secret.encode(), b"tls " + certificate, "sha256")
