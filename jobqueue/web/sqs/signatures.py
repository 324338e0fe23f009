"""Signature Version 4 of AWS: who has signed a request. Pure: the time and the secrets are arguments.

The client signs the method, the path, the query, some headers and the SHA-256 of the body with a key that is
derived from its secret for one day, region and service. The same is computed here and compared.
"""

import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from jobqueue.web.http import Request
from jobqueue.web.sqs.errors import (
    INCOMPLETE_SIGNATURE,
    UNKNOWN_CLIENT,
    WRONG_SIGNATURE,
    SqsError,
)

ALGORITHM: Final = "AWS4-HMAC-SHA256"
# How far the clocks of client and server may be apart, in milliseconds.
SKEW: Final = 15 * 60_000
_SERVICE = "sqs"
_PART = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")
_SCOPE = re.compile(r"(.+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
_DATE = re.compile(r"\d{8}T\d{6}Z")
_SPACES = re.compile(r" +")
_MOST_KEYS = 1000


class Credential(NamedTuple):
    """The credential of a signature: the id of the key, and what its key was derived for."""

    key_id: str
    day: str
    region: str
    service: str

    @property
    def scope(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def credential(authorization: str) -> Credential | None:
    """Returns the credential of an `Authorization` header; None: it is none of this scheme."""
    if not authorization.startswith(ALGORITHM):
        return None
    found = _SCOPE.fullmatch(dict(_PART.findall(authorization)).get("Credential", ""))
    return Credential(*found.groups()) if found is not None else None


def signer_of(request: Request, secret_of: Callable[[str], str | None], keys: "SigningKeys", now: int) -> str:
    """Returns the id of the key with which `request` was signed. `secret_of` returns the secret of an id;
    None: there is none. `now` is the wall clock in milliseconds. Raises `SqsError`."""
    header = request.header(b"authorization") or ""
    parts = dict(_PART.findall(header))
    signer = credential(header)
    if signer is None or signer.service != _SERVICE or len(parts) != 3:
        raise SqsError(
            INCOMPLETE_SIGNATURE,
            "Authorization header requires 'Credential' with the scope DATE/REGION/sqs/aws4_request, "
            "'SignedHeaders' and 'Signature' parameters.",
        )
    if b"x-amz-security-token" in request.headers:
        raise SqsError(
            UNKNOWN_CLIENT, "The security token included in the request is invalid: this server gives none."
        )
    secret = secret_of(signer.key_id)
    if secret is None:
        raise SqsError(
            UNKNOWN_CLIENT,
            "The security token included in the request is invalid: no access token of this name has an "
            "sqs_secret.",
        )
    date = _date(request, signer, now)
    signed = parts["SignedHeaders"].split(";")
    # The target chooses the action, so nobody may add one to a request that was seen.
    for name in ("host", "x-amz-target"):
        if name not in signed and (name == "host" or name.encode() in request.headers):
            raise SqsError(
                INCOMPLETE_SIGNATURE, f"'{name}' must be a 'SignedHeader' in the AWS Authorization."
            )
    text = "\n".join([ALGORITHM, date, signer.scope, _digest(canonical_request(request, signed))])
    good = hmac.new(keys.of(secret, signer), text.encode(), sha256).hexdigest()
    if not hmac.compare_digest(good.encode(), parts["Signature"].encode()):
        raise SqsError(
            WRONG_SIGNATURE,
            "The request signature we calculated does not match the signature you provided. Check your AWS "
            "Secret Access Key and signing method.",
        )
    return signer.key_id


def _date(request: Request, signer: Credential, now: int) -> str:
    """Returns the date of a request. Raises `SqsError` if it is too far from `now`."""
    date = request.header(b"x-amz-date") or ""
    if not _DATE.fullmatch(date) or date[:8] != signer.day:
        raise SqsError(
            INCOMPLETE_SIGNATURE, "X-Amz-Date must be there, as 20270101T000000Z and of the day of the scope."
        )
    try:
        at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1000
    except ValueError:
        at = 0.0
    if abs(now - at) > SKEW:
        here = datetime.fromtimestamp(now / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        which = "Signature expired" if at < now else "Signature not yet current"
        raise SqsError(WRONG_SIGNATURE, f"{which}: {date} is more than 15 minutes from {here}.")
    return date


def canonical_request(request: Request, signed: list[str]) -> str:
    """Returns the text whose digest is signed."""
    values = [_SPACES.sub(" ", (request.header(name.encode()) or "").strip()) for name in signed]
    return "\n".join(
        [
            request.method,
            quote(request.path, safe="/~"),
            _canonical_query(request.query),
            *[f"{name}:{value}" for name, value in zip(signed, values, strict=True)],
            "",
            ";".join(signed),
            sha256(request.body).hexdigest(),
        ]
    )


def _canonical_query(query: str) -> str:
    pairs = [part.partition("=") for part in query.split("&") if part]
    return "&".join(sorted(f"{_plain(name)}={_plain(value)}" for name, _, value in pairs))


def _plain(part: str) -> str:
    return quote(unquote(part.replace("+", " ")), safe="~")


def _digest(text: str) -> str:
    return sha256(text.encode("latin-1", "replace")).hexdigest()


class SigningKeys:
    """Keys that are derived from secrets. Each is used for a day, so they are kept."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, Credential], bytes] = {}

    def of(self, secret: str, signer: Credential) -> bytes:
        key = self._keys.get((secret, signer))
        if key is None:
            key = f"AWS4{secret}".encode()
            for part in (signer.day, signer.region, signer.service, "aws4_request"):
                key = hmac.new(key, part.encode(), sha256).digest()
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            self._keys[secret, signer] = key
        return key


def account_and_region(headers: Mapping[bytes, bytes]) -> tuple[str | None, str | None]:
    """Returns what a signature says of account and region, whether it is good or not: an id of twelve digits
    is an account, as in LocalStack."""
    header = headers.get(b"authorization", b"").decode("latin-1")
    signer = credential(header)
    if signer is None:
        return None, None
    is_account = len(signer.key_id) == 12 and signer.key_id.isascii() and signer.key_id.isdigit()
    return (signer.key_id if is_account else None), signer.region
