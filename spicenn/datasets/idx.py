"""The idx format of MNIST: two zero bytes, a type, the number of axes, lengths, values.

Source of the format: LeCun, Cortes and Burges, The MNIST database, section "File formats".
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.datasets.images import check_limit
from spicenn.datasets.reading import Readable, read_exactly
from spicenn.errors import InputError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8
_MOST_BYTES = 4 * 2**30


def read_idx(stream: Readable, *, where: str = "idx", limit: int | None = None) -> NDArray[Any]:
    """Read an array from a binary stream, uncompressed idx.

    Parameters
    ----------
    stream : what has ``read``: an open file, or ``gzip.open`` of one.
    where : what messages call it.
    limit : read only so many entries of the first axis; None is all.

    Returns
    -------
    The array in the file's shape, read-only, in the machine's byte order.

    Raises InputError for a wrong magic number, unknown type, more than 4 GiB, too few
    bytes, or bytes left over.
    """
    check_limit(limit)
    zero, code, axes = struct.unpack(">HBB", read_exactly(stream, 4, where))
    if zero != 0 or code not in _TYPES or not 1 <= axes <= _MOST_AXES:
        raise InputError(
            f"magic number {zero:04x}{code:02x}{axes:02x} is not that of an idx file",
            where=where,
            remedy="give the original file; a packed one ends in .gz",
        )
    shape = list(struct.unpack(f">{axes}I", read_exactly(stream, 4 * axes, where)))
    whole = limit is None or limit >= shape[0]
    if limit is not None:
        shape[0] = min(shape[0], limit)
    dtype = np.dtype(_TYPES[code])
    size = math.prod(shape) * dtype.itemsize
    if size > _MOST_BYTES:
        raise InputError(f"claims {size} bytes", where=where, remedy=f"at most {_MOST_BYTES}")
    data = read_exactly(stream, size, where)
    # In a packed file the read past the end is also what checks its own checksum.
    if whole and _more(stream, where):
        raise InputError(f"holds more than the {shape} that it claims", where=where)
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _more(stream: Readable, where: str) -> bool:
    try:
        return bool(read_exactly(stream, 1, where))
    except InputError as error:
        if error.__cause__ is not None:  # damaged, which is not the same as the end
            raise
        return False
