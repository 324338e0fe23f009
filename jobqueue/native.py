"""What tells mypyc how to compile a class.

`i64` is an int of 64 bits, which a compiled class keeps in itself. A class with `mypyc_attr(acyclic=True)` is
not tracked by the garbage collector. The package `mypy_extensions` is needed for compiling and checking only.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

__all__ = ["i64", "mypyc_attr"]

if TYPE_CHECKING:
    from mypy_extensions import i64, mypyc_attr
else:
    T = TypeVar("T")
    i64 = int

    def mypyc_attr(**_: object) -> Callable[[T], T]:
        return lambda record: record
