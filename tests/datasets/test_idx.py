"""Whatever an idx file holds comes back; whatever is wrong with one is said."""

import gzip
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spicenn.datasets import read_idx
from spicenn.errors import InputError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array):
    code = CODES[array.dtype.str[1:]]
    head = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


arrays = hnp.arrays(
    st.sampled_from([np.dtype(code) for code in CODES]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
)


@settings(derandomize=True, deadline=None)
@given(array=arrays, limit=st.none() | st.integers(1, 6), packed=st.booleans())
def test_what_was_written_is_read(array, limit, packed):
    data = idx(array)
    stream = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))) if packed else io.BytesIO(data)
    got = read_idx(stream, limit=limit)
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, array[:limit])


@settings(derandomize=True, deadline=None)
@given(array=arrays, data=st.data())
def test_a_file_cut_anywhere_is_refused(array, data):
    whole = idx(array)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError, match="ends after"):
        read_idx(io.BytesIO(whole[:end]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x01\x08\x01\0\0\0\0", "magic number 00010801"),
        (b"\x00\x00\x0a\x01\0\0\0\0", "magic number 00000a01"),
        (b"\x00\x00\x08\x00", "magic number"),
        (b"\x1f\x8b\x08\x00rest", "ends in .gz"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), "claims"),
        (idx(np.zeros(3, np.uint8)) + b"x", "holds more"),
    ],
)
def test_what_is_no_idx_file_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        read_idx(io.BytesIO(data))


def test_a_large_claim_costs_no_memory():
    # 3 GiB are claimed and 10 bytes are there; allocating first would be seen in the peak.
    import tracemalloc

    data = struct.pack(">HBBI", 0, 8, 1, 3 * 2**30) + bytes(10)
    tracemalloc.start()
    with pytest.raises(InputError, match="ends after 10 of"):
        read_idx(io.BytesIO(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_damage_in_a_packed_file_is_found_by_its_own_checksum():
    array = np.random.default_rng(0).integers(0, 256, 4000, dtype=np.uint8)
    data = bytearray(gzip.compress(idx(array), mtime=0))
    data[-6] ^= 1  # in the checksum itself: the values read are right
    with pytest.raises(InputError, match="cannot be read"):
        read_idx(gzip.GzipFile(fileobj=io.BytesIO(bytes(data))))


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_is_a_count(limit):
    with pytest.raises(InputError, match="limit"):
        read_idx(io.BytesIO(idx(np.zeros(3, np.uint8))), limit=limit)


def test_the_order_of_axes_is_that_of_the_format():
    # Last axis fastest, as the format says ("like in C"): written by hand, not by idx().
    data = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))
    np.testing.assert_array_equal(read_idx(io.BytesIO(data)), [[0, 1, 2], [3, 4, 5]])
