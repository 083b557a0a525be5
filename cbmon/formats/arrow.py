"""A polars column into an array in one copy, through the Arrow C stream interface, without numpy or pyarrow.

Boxing each of a million numbers as a Python object would take half of a bulk load's time. The layout is Arrow's
stable ABI (https://arrow.apache.org/docs/format/CStreamInterface.html). Imported together with polars.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


class _Array(ctypes.Structure):
    """struct ArrowArray: one chunk of a column."""


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.c_void_p),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))),
    ("private_data", ctypes.c_void_p),
]


class _Stream(ctypes.Structure):
    """struct ArrowArrayStream: the chunks of a column; whoever holds its capsule need not release it."""

    _fields_ = (
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Array))),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    )


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def to_array(code: str, column: pl.Series) -> array[Any]:
    """The values of a column of 8-byte numbers without nulls, shape (rows,); `code` is "d" or "q"."""
    capsule = column.__arrow_c_stream__()
    address = _pointer_of(capsule, b"arrow_array_stream")
    stream, chunk, values = _Stream.from_address(address), _Array(), array(code)
    while stream.get_next(address, ctypes.byref(chunk)) == 0 and chunk.release:
        if chunk.length:
            start = chunk.buffers[1] + chunk.offset * values.itemsize
            values.frombytes((ctypes.c_char * (chunk.length * values.itemsize)).from_address(start))
        chunk.release(ctypes.byref(chunk))
    return values if len(values) == len(column) else array(code, column.to_list())
