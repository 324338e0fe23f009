"""Broken and ambiguous requests as bytes, and what each front does with them.

The fast front refuses all of `BROKEN` with a problem document, code `bad_request`. Tornado's own front answers with
a bare 400. Where it does something else, `tornado` says what, and `note` why it is harmless: a proxy that
reads the bytes in another way cannot be made to see a second request in them.
"""

from typing import NamedTuple

JOB = b'{"type":"x"}'
LENGTH = b"Content-Length: 12\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"c\r\n" + JOB + b"\r\n0\r\n\r\n"
POST = b"POST /jobs/enqueue HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
ENQUEUE = POST + HOST + LENGTH + b"\r\n" + JOB

WAITS = "waits for more"
CLOSES = "closes"


class Vector(NamedTuple):
    group: str
    name: str
    data: bytes
    tornado: str = "400"
    note: str = ""

    @property
    def title(self) -> str:
        return f"{self.group}: {self.name}"


def _line(line: bytes) -> bytes:
    return line + b"\r\n" + HOST + LENGTH + b"\r\n" + JOB


def _field(field: bytes) -> bytes:
    """A valid request with one more header line."""
    return POST + HOST + field + b"\r\n" + LENGTH + b"\r\n" + JOB


def _length(value: bytes) -> bytes:
    return POST + HOST + b"Content-Length: " + value + b"\r\n\r\n" + JOB


def _coding(value: bytes, more: bytes = b"", body: bytes = CHUNKS) -> bytes:
    return POST + HOST + b"Transfer-Encoding: " + value + b"\r\n" + more + b"\r\n" + body


def _chunks(body: bytes) -> bytes:
    return POST + HOST + CHUNKED + b"\r\n" + body


def _host(lines: bytes) -> bytes:
    return POST + lines + LENGTH + b"\r\n" + JOB


_ONE = "the same number twice is that number (RFC 9112, 6.3)"
_LF = "a lone LF ends a line (RFC 9112, 2.2, allows it)"
_STUCK = "no end of a line is found, so nothing is performed"

BROKEN = (
    Vector("length", "a length and chunked", _coding(b"chunked", LENGTH)),
    Vector("length", "chunked and a length", POST + HOST + LENGTH + CHUNKED + b"\r\n" + CHUNKS),
    Vector("length", "two equal lengths", POST + HOST + LENGTH + LENGTH + b"\r\n" + JOB, "201", _ONE),
    Vector("length", "two lengths that differ", _field(b"Content-Length: 5")),
    Vector("length", "a list of equal lengths", _length(b"12, 12"), "201", _ONE),
    Vector("length", "a list of lengths that differ", _length(b"12, 5")),
    Vector("length", "+12", _length(b"+12")),
    Vector("length", "-12", _length(b"-12")),
    Vector("length", "0xc", _length(b"0xc")),
    Vector("length", "1_2", _length(b"1_2")),
    Vector("length", "12.0", _length(b"12.0")),
    Vector("length", "1 2", _length(b"1 2")),
    Vector("length", "12;", _length(b"12;")),
    Vector("length", "empty", _length(b"")),
    Vector("length", "superscript digits", _length("¹²".encode("latin-1"))),
    Vector("length", "2^64 + 12", _length(b"18446744073709551628"), "413", "it counts on, and finds it long"),
    Vector("coding", "gzip, chunked", _coding(b"gzip, chunked")),
    Vector("coding", "identity", _coding(b"identity")),
    Vector("coding", "identity and a length", _coding(b"identity", LENGTH, JOB)),
    Vector("coding", "xchunked", _coding(b"xchunked")),
    Vector("coding", "xchunked and a length", _coding(b"xchunked", LENGTH, JOB)),
    Vector("coding", "chunked, chunked", _coding(b"chunked, chunked")),
    Vector("coding", "chunked in two headers", _coding(b"chunked", CHUNKED)),
    Vector("coding", "chunked, identity", _coding(b"chunked, identity")),
    Vector("coding", "chunked;q=1", _coding(b"chunked;q=1")),
    Vector("coding", '"chunked"', _coding(b'"chunked"')),
    Vector("coding", ",chunked", _coding(b",chunked")),
    Vector("coding", "vertical tab, chunked", _coding(b"\x0bchunked")),
    Vector("coding", "a tab behind it", _coding(b"chunked\t"), "201", "no part of the value (RFC 9112, 5)"),
    Vector("coding", "empty", _coding(b"")),
    Vector("coding", "empty, and a length", _coding(b"", LENGTH, JOB)),
    Vector("coding", "chunked in HTTP/1.0", _coding(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
           "201", "it reads the chunks, and closes"),
    Vector("host", "no Host", _host(b"")),
    Vector("host", "two Hosts", _host(b"Host: a\r\nHost: b\r\n")),
    Vector("host", "the same Host twice", _host(HOST + HOST)),
    Vector("host", "a list", _host(b"Host: a, b\r\n")),
    Vector("host", "a path", _host(b"Host: a/b\r\n")),
    Vector("host", "a space", _host(b"Host: a b\r\n")),
    Vector("line ends", "CR in a value", _field(b"X: a\rb")),
    Vector("line ends", "CR for CR LF", POST + HOST + b"X: a\r" + LENGTH + b"\r\n" + JOB),
    Vector("line ends", "CR before the colon", _field(b"X\r: a")),
    Vector("line ends", "CR CR LF at the end", POST + HOST + LENGTH + b"\r\r\n" + JOB, WAITS, _STUCK),
    Vector("line ends", "LF everywhere", ENQUEUE.replace(b"\r\n", b"\n"), "201", _LF),
    Vector("line ends", "LF after one header", _field(b"X: a\nY: b"), "201", _LF),
    Vector("line ends", "LF after the request line", POST[:-2] + b"\n" + HOST + LENGTH + b"\r\n" + JOB,
           "201", _LF),
    Vector("line ends", "LF after the head", POST + HOST + LENGTH + b"\n" + JOB, "201", _LF),
    Vector("headers", "space before the colon", _field(b"X : a")),
    Vector("headers", "space before a length's colon", POST + HOST + b"Content-Length : 12\r\n\r\n" + JOB),
    Vector("headers", "tab before the colon", _field(b"X\t: a")),
    Vector("headers", "space in a name", _field(b"X Y: a")),
    Vector("headers", "an empty name", _field(b": a")),
    Vector("headers", "no colon", _field(b"Xa")),
    Vector("headers", "folded with a space", _field(b"X: a\r\n b")),
    Vector("headers", "folded with a tab", _field(b"X: a\r\n\tb")),
    Vector("headers", "a folded coding", _coding(b"\r\n chunked")),
    Vector("headers", "space before the first", _host(b" X: a\r\n" + HOST)),
    Vector("headers", "tab before the first", _host(b"\tX: a\r\n" + HOST)),
    Vector("headers", "NUL in a value", _field(b"X: a\0b")),
    Vector("headers", "NUL in a name", _field(b"X\0: a")),
    Vector("headers", "a control character in a value", _field(b"X: a\x01b")),
    Vector("headers", "DEL in a value", _field(b"X: a\x7fb")),
    Vector("headers", "non-ASCII in a name", _field(b"X\xe9: a")),
    Vector("chunks", "size 0xc", _chunks(b"0x" + CHUNKS)),
    Vector("chunks", "size -c", _chunks(b"-" + CHUNKS)),
    Vector("chunks", "size +c", _chunks(b"+" + CHUNKS)),
    Vector("chunks", "size 0_c", _chunks(b"0_" + CHUNKS)),
    Vector("chunks", "space before the size", _chunks(b" " + CHUNKS)),
    Vector("chunks", "space after the size", _chunks(CHUNKS.replace(b"c\r\n", b"c \r\n", 1))),
    Vector("chunks", "no size", _chunks(b"\r\n" + JOB + b"\r\n0\r\n\r\n")),
    Vector("chunks", "size 2^64 + 12", _chunks(b"1000000000000000" + CHUNKS)),
    Vector("chunks", "data longer than its size", _chunks(b"5" + CHUNKS[1:])),
    Vector("chunks", "no line end after the data", _chunks(b"c\r\n" + JOB + b"0\r\n\r\n")),
    Vector("chunks", "LF only", _chunks(CHUNKS.replace(b"\r\n", b"\n")), WAITS, _STUCK),
    Vector("chunks", "LF after the size", _chunks(CHUNKS.replace(b"\r\n", b"\n", 1))),
    Vector("chunks", "LF after the data", _chunks(CHUNKS.replace(JOB + b"\r\n", JOB + b"\n"))),
    Vector("chunks", "LF at the end", _chunks(CHUNKS[:-4] + b"\n\n"), WAITS, _STUCK),
    Vector("chunks", "CR only", _chunks(CHUNKS.replace(b"\r\n", b"\r", 1))),
    Vector("chunks", "LF in an extension", _chunks(CHUNKS.replace(b"c\r\n", b"c;a=b\n", 1))),
    Vector("chunks", "CR in an extension", _chunks(CHUNKS.replace(b"c\r\n", b"c;a=\rb\r\n", 1))),
    Vector("chunks", "NUL in an extension", _chunks(CHUNKS.replace(b"c\r\n", b"c;a=\0\r\n", 1))),
    Vector("chunks", "a trailer without colon", _chunks(CHUNKS[:-2] + b"Host evil\r\n\r\n")),
    Vector("chunks", "a trailer ended by LF", _chunks(CHUNKS[:-2] + b"X: a\n\r\n")),
    Vector("chunks", "a length as trailer", _chunks(CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n")),
    Vector("chunks", "a coding as trailer", _chunks(CHUNKS[:-2] + CHUNKED + b"\r\n")),
    Vector("request line", "HTTP/1.2", _line(b"POST /jobs/enqueue HTTP/1.2"),
           "201", "read as 1.1 (RFC 9110, 2.5), and closed"),
    Vector("request line", "HTTP/2.0", _line(b"POST /jobs/enqueue HTTP/2.0")),
    Vector("request line", "HTTP/2.0, keep-alive", _line(b"POST /jobs/enqueue HTTP/2.0").replace(
        HOST, HOST + b"Connection: keep-alive\r\n")),
    Vector("request line", "HTTP/0.9", _line(b"POST /jobs/enqueue HTTP/0.9")),
    Vector("request line", "HTTP/1.01", _line(b"POST /jobs/enqueue HTTP/1.01")),
    Vector("request line", "HTTP/11", _line(b"POST /jobs/enqueue HTTP/11")),
    Vector("request line", "http/1.1", _line(b"POST /jobs/enqueue http/1.1")),
    Vector("request line", "ICE/1.1", _line(b"POST /jobs/enqueue ICE/1.1")),
    Vector("request line", "no version", b"GET /healthz\r\n\r\n"),
    Vector("request line", "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Vector("request line", "tab after the method", _line(b"POST\t/jobs/enqueue HTTP/1.1")),
    Vector("request line", "tab before the version", _line(b"POST /jobs/enqueue\tHTTP/1.1")),
    Vector("request line", "space at the end", _line(b"POST /jobs/enqueue HTTP/1.1 ")),
    Vector("request line", "space at the start", _line(b" POST /jobs/enqueue HTTP/1.1")),
    Vector("request line", "space in the target", _line(b"POST /jobs/enqueue x HTTP/1.1")),
    Vector("request line", "control character in the target", _line(b"POST /jobs/enqueue?a=\x01 HTTP/1.1")),
    Vector("request line", "NUL in the target", _line(b"POST /jobs/enqueue\0 HTTP/1.1")),
    Vector("request line", "non-ASCII path", _line("POST /jobs/é HTTP/1.1".encode("latin-1")),
           "405", "not understood, so nothing is performed"),
    Vector("request line", "non-ASCII query", _line("POST /jobs/enqueue?type=é HTTP/1.1".encode("latin-1")),
           "400", "with a problem document, `invalid_field`"),
    Vector("request line", "no slash before the path", _line(b"POST jobs/enqueue HTTP/1.1"),
           "404", "not understood, so nothing is performed"),
    Vector("request line", "( in the method", _line(b"PO(ST /jobs/enqueue HTTP/1.1")),
    Vector("request line", "a method in lower case", _line(b"post /jobs/enqueue HTTP/1.1"),
           "405", "for it any token is a method"),
    Vector("request line", "an unknown method", _line(b"FOOBAR /jobs/enqueue HTTP/1.1"),
           "405", "for it any token is a method"),
    Vector("request line", "CONNECT", _line(b"CONNECT localhost:80 HTTP/1.1"),
           "404", "a method like any other"),
    Vector("request line", "a TLS hello", bytes.fromhex("16030100c8010000c40303") + bytes(50), WAITS, _STUCK),
    Vector("request line", "noise", b"\xff\xfe\x00\n\n\r\n\r\n"),
)  # fmt: skip

_CLEAR = "allowed by RFC 9112, 3"

# Requests that llhttp accepts and Tornado refuses with 400. No proxy sends them, and they are unambiguous.
LENIENT = (
    Vector("request line", "two spaces after the method", _line(b"POST  /jobs/enqueue HTTP/1.1"),
           note=_CLEAR),
    Vector("request line", "two spaces before the version", _line(b"POST /jobs/enqueue  HTTP/1.1"),
           note=_CLEAR),
    Vector("request line", "RTSP/1.1", _line(b"POST /jobs/enqueue RTSP/1.1"), note="llhttp does not say it"),
    Vector("chunks", "an extension", _chunks(CHUNKS.replace(b"c\r\n", b'c;a=b;c="d"\r\n', 1)),
           note="RFC 9112, 7.1.1, would have it ignored"),
    Vector("chunks", "a trailer", _chunks(CHUNKS[:-2] + b"X: a\r\n\r\n"),
           note="RFC 9112, 7.1.2, would have it read"),
)  # fmt: skip
