"""Salvage: what can still be read of a damaged journal, page by page, without SQLite's help.

SQLite gives up where a page cannot be trusted; here every row has a checksum of its own, so what is found can
be trusted row by row. The layout: https://www.sqlite.org/fileformat2.html, sections 1.5 to 1.6 and 2.1.
"""

from collections.abc import Iterator
from struct import unpack_from

PAGE = 4096
_LEAF = 0x0D
# How much of a row is on its page: as the file format has it for pages of this size.
_MOST_LOCAL = PAGE - 35
_LEAST_LOCAL = (PAGE - 12) * 32 // 255 - 23
_IN_OVERFLOW = PAGE - 4


def rows_in(file: bytes) -> Iterator[tuple[int, bytes]]:
    """Keys and bodies of all rows on pages in use, in the order of the pages. Nothing of them is checked."""
    free = _free_pages(file)
    for number in range(2, len(file) // PAGE + 1):  # the first one holds the schema
        start = (number - 1) * PAGE
        if number in free or file[start] != _LEAF:
            continue
        (cells,) = unpack_from(">H", file, start + 3)
        for index in range(min(cells, (PAGE - 8) // 2)):
            (at,) = unpack_from(">H", file, start + 8 + 2 * index)
            try:
                row = _row(file, start, at)
            except (IndexError, ValueError):
                continue
            if row is not None:
                yield row


def _free_pages(file: bytes) -> set[int]:
    """Pages that hold what was deleted."""
    free: set[int] = set()
    trunk = int.from_bytes(file[32:36], "big")
    while trunk and trunk not in free and trunk * PAGE <= len(file):
        free.add(trunk)
        start = (trunk - 1) * PAGE
        trunk, count = unpack_from(">II", file, start)
        count = min(count, PAGE // 4 - 2)
        free.update(unpack_from(f">{count}I", file, start + 8))
    return free


def _row(file: bytes, page: int, at: int) -> tuple[int, bytes] | None:
    """The row of the cell at `at` of a page; None: it is no row of ours. `IndexError`, `ValueError`: it is
    not all there."""
    if at >= PAGE:
        return None
    size, at = _varint(file, page + at)
    key, at = _varint(file, at)
    local = size
    if size > _MOST_LOCAL:
        local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % _IN_OVERFLOW
        if local > _MOST_LOCAL:
            local = _LEAST_LOCAL
    content = file[at : at + local]
    if local < size:
        content += _overflow(file, int.from_bytes(file[at + local : at + local + 4], "big"), size - local)
    if len(content) != size:
        raise ValueError
    head, at = _varint(content, 0)
    kind_of_key, at = _varint(content, at)
    kind, at = _varint(content, at)
    if kind_of_key != 0 or at != head or kind < 12 or kind % 2 or head + (kind - 12) // 2 != size:
        return None
    return key - (1 << 64) if key >> 63 else key, content[head:]


def _overflow(file: bytes, page: int, left: int) -> bytes:
    pieces = []
    while left > 0:
        start = (page - 1) * PAGE
        if page < 2 or start + PAGE > len(file):
            raise ValueError
        piece = file[start + 4 : start + 4 + min(left, _IN_OVERFLOW)]
        pieces.append(piece)
        left -= len(piece)
        page = int.from_bytes(file[start : start + 4], "big")
    return b"".join(pieces)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1
