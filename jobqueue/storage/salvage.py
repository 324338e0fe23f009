"""Salvage: reads the rows of a damaged journal file page by page, without SQLite.

SQLite gives up at the first page that it cannot trust. Every row of a journal has its own checksum, so rows
can be trusted one by one. For the layout see https://www.sqlite.org/fileformat2.html, sections 1.5, 1.6 and
2.1.
"""

from collections.abc import Iterator
from struct import unpack_from

PAGE = 4096
_LEAF_PAGE = 0x0D
# Bytes of a row that are stored on its leaf page, and on each overflow page, by the file format.
_MAX_LOCAL = PAGE - 35
_MIN_LOCAL = (PAGE - 12) * 32 // 255 - 23
_PER_OVERFLOW_PAGE = PAGE - 4


def rows_in(file: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields key and body of each row on the pages in use, in page order. Nothing is verified."""
    free = _free_pages(file)
    for number in range(2, len(file) // PAGE + 1):  # the first one holds the schema
        start = (number - 1) * PAGE
        if number in free or file[start] != _LEAF_PAGE:
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
    """Returns the numbers of the pages that hold only deleted rows."""
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
    """Returns the row of the cell at offset `at` of the page that starts at offset `page`. None if it is not
    a row of the table `record`. Raises `IndexError` or `ValueError` if it is incomplete."""
    if at >= PAGE:
        return None
    size, at = _varint(file, page + at)
    key, at = _varint(file, at)
    local = size
    if size > _MAX_LOCAL:
        local = _MIN_LOCAL + (size - _MIN_LOCAL) % _PER_OVERFLOW_PAGE
        if local > _MAX_LOCAL:
            local = _MIN_LOCAL
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
    """Returns `left` bytes from the chain of overflow pages that starts at page number `page`."""
    pieces = []
    while left > 0:
        start = (page - 1) * PAGE
        if page < 2 or start + PAGE > len(file):
            raise ValueError
        piece = file[start + 4 : start + 4 + min(left, _PER_OVERFLOW_PAGE)]
        pieces.append(piece)
        left -= len(piece)
        page = int.from_bytes(file[start : start + 4], "big")
    return b"".join(pieces)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number of one to nine bytes at offset `at`, and the offset of its end."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1
