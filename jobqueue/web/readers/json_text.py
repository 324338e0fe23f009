"""JSON as text: checks of a body or a payload beyond those of the decoder."""

import re
from itertools import accumulate
from typing import Final

import msgspec

from jobqueue.errors import InvalidField, InvalidJson

# How the decoder names what it got, and what JSON calls it.
_GOT: Final = re.compile(r"Expected `.*`, got `(\w+)`")
_NAMES: Final = {
    "str": "a string",
    "int": "a number",
    "float": "a fraction",
    "bool": "true or false",
    "null": "null",
}
_FORM: Final = re.compile(rb"\s*(--|[A-Za-z_][\w.\[\]-]*=)")
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # of signed bytes
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_NOT_COMMAS_OR_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{},"))
_STEPS_BESIDE_COMMAS: Final = bytes.maketrans(b"[{]},", b"\x01\x01\xff\xff\x00")
_LINE_BREAKS: Final = bytes.maketrans(b"\r\n", b"  ")


def check_utf8(body: bytes) -> None:
    """Raises `InvalidJson` if `body` is not UTF-8, which the decoder does not check in what it skips."""
    if body.isascii():
        return
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise InvalidJson(f"the body is not UTF-8: byte {bad.start}") from None


# A half of a character, which is no JSON text by itself.
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NO_CONTROLS: Final = bytes(32 if code < 32 or code > 126 else code for code in range(256))
_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_raw_array: Final = msgspec.json.Decoder(list[msgspec.Raw])


def items_of(body: bytes) -> list[bytes] | None:
    """Returns the items of a JSON array as they stand, also if texts in them are not valid: half a character,
    bytes that are not UTF-8, control characters. None: its brackets and commas do not fit either.
    """
    # The same length, so that places in it are those of the body.
    shape = _HALF.sub(rb"\\u0020", body.translate(_NO_CONTROLS).replace(b"\\\\", b"??"))
    try:
        raws = _raw_array.decode(shape)
    except REFUSED:
        return None
    items, at = [], 0
    for raw in raws:
        text = bytes(raw)
        at = shape.index(text, at)
        items.append(body[at : at + len(text)])
        at += len(text)
    return items


def item_at(body: bytes, bad: Exception) -> int | None:
    """Returns the index of the item of an array at which the decoder stopped; None: it does not say."""
    found = _BYTE.search(str(bad))
    if found is None:
        return None
    head = body[: int(found[1])].replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(head.split(b'"')[::2]).translate(None, _NOT_COMMAS_OR_BRACKETS)
    steps = memoryview(outside.translate(_STEPS_BESIDE_COMMAS)).cast("b")
    return sum(depth == 1 and not step for depth, step in zip(accumulate(steps), steps, strict=True))


def is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def one_line(text: bytes, max_depth: int) -> bytes:
    """Returns a valid JSON value with the line breaks between its tokens replaced by spaces.

    Raises `InvalidJson` if it is nested too deeply.
    """
    if text.count(b"[") + text.count(b"{") > max_depth and _deeper_than(text, max_depth):
        raise too_deep(max_depth)
    # A line break can only stand between tokens: inside a string JSON has it escaped.
    return text.translate(_LINE_BREAKS) if b"\n" in text or b"\r" in text else text


def too_deep(max_depth: int) -> InvalidJson:
    return InvalidJson(
        f"the JSON is nested more than {max_depth} levels deep", limit=max_depth, setting="JOBQUEUE_MAX_DEPTH"
    )


def _deeper_than(text: bytes, max_depth: int) -> bool:
    """Tells whether JSON is nested deeper than a limit: a running sum over its brackets, +1 and -1.

    All steps run at the speed of C. The innermost level is removed first, since it is most of most texts.
    """
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    steps = b"".join(text.split(b'"')[::2]).translate(_STEPS, _NOT_BRACKETS)
    outer = memoryview(steps.replace(b"\x01\xff", b"")).cast("b")
    return bool(steps) + max(accumulate(outer), default=0) > max_depth


# How the decoder refuses a text.
REFUSED: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def syntax_error(body: bytes, bad: Exception, max_depth: int) -> InvalidJson | InvalidField:
    """Returns the error for a body that the decoder refused. The decoder has three ways to report it."""
    if isinstance(bad, RecursionError):
        return too_deep(max_depth)
    if isinstance(bad, UnicodeDecodeError):
        return InvalidJson("the body is not UTF-8")
    if body.startswith(b"\xef\xbb\xbf"):
        return InvalidJson("the body begins with a byte order mark; send plain UTF-8")
    if isinstance(bad, msgspec.ValidationError):
        return InvalidField(f"the body cannot be read{what_it_is(bad)}")
    if "truncated" in str(bad) and b"\\ud" in body.lower():
        return InvalidJson("the body has an escape of half a character: \\ud800 to \\udfff come in pairs")
    if _FORM.match(body):
        return InvalidJson(
            'the body looks like a form; send JSON, such as -d \'{"type":"email"}\', or options in the query'
        )
    said = (
        str(bad).removeprefix("JSON is malformed: ").replace("Input data was truncated", "its end is missing")
    )
    if said.startswith("object keys must be strings"):
        said += "; names and texts stand in double quotes"
    return InvalidJson(f"the body is not JSON: {said}")


def what_it_is(bad: Exception) -> str:
    """Returns the type that the decoder found in place of the expected one, for the end of a sentence."""
    got = _GOT.search(str(bad))
    if got is None:
        return ""
    what = _NAMES.get(got[1], "an " + got[1])
    return f", and there is {what} in it" if " - at `" in str(bad) else f", not {what}"
