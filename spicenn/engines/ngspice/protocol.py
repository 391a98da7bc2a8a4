"""Messages between client and child: a JSON header and arrays of float64, nothing that runs."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Header = dict[str, Any]

_PREFIX = struct.Struct("<4sI")
_MAGIC = b"spn1"
_LARGEST_HEADER = 1 << 30


class ProtocolError(Exception):
    """The other end closed the pipe or said something else."""


def pack(header: Header, arrays: Sequence[Array] = ()) -> bytes:
    """Return one message as bytes."""
    arrays = [np.ascontiguousarray(array, dtype="<f8") for array in arrays]
    text = json.dumps({**header, "shapes": [array.shape for array in arrays]}).encode()
    return b"".join([_PREFIX.pack(_MAGIC, len(text)), text, *(a.tobytes() for a in arrays)])


def unpack(read: Callable[[int], bytes]) -> tuple[Header, list[Array]]:
    """Read one message through ``read(count)``, which returns exactly count bytes.

    Raises ProtocolError where the bytes are not a message.
    """
    magic, size = _PREFIX.unpack(read(_PREFIX.size))
    if magic != _MAGIC or size > _LARGEST_HEADER:
        raise ProtocolError("not a message")
    header: Header = json.loads(read(size))
    arrays = []
    for shape in header.pop("shapes"):
        count = int(np.prod(shape, dtype=np.int64))
        arrays.append(np.frombuffer(read(8 * count), "<f8").reshape(shape))
    return header, arrays
