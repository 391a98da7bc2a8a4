"""A design as one file: a zip of ``design.json`` and plain arrays, never pickle.

A file from elsewhere may be hostile. Members are stored, not compressed, so that none
can grow beyond the file; sizes, dtypes, names and references are checked before use.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.compiler.document import from_document, to_document
from spicenn.errors import DesignError

FORMAT = 1
_JSON = "design.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MOST_BYTES = 4 * 2**30
_MOST_JSON_BYTES = 64 * 2**20
_MOST_MEMBERS = 20_000
_MOST_AXES = 8
# A result depends on none of these: where the source lay, what compiled it, sample inputs.
_NOT_HASHED = ("versions", "example", "source")


def to_bytes(design: Design) -> bytes:
    """Return the archive of a design; the same design gives the same bytes."""
    document, arrays = to_document(design)
    document["format"] = FORMAT
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_JSON, _EPOCH), _canonical(document))
        for index, array in enumerate(arrays):
            member = io.BytesIO()
            npy.write_array(member, _plain(array), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(_member(index), _EPOCH), member.getvalue())
    return buffer.getvalue()


def save(design: Design, path: Path) -> None:
    """Write the archive; a file is there whole or not at all. Raises DesignError."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(to_bytes(design))
        partial.replace(path)
    except OSError as error:
        raise DesignError(f"cannot be written: {error}", where=str(path)) from error


def load(
    path: Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> Design:
    """Read an archive. Raises DesignError saying what is wrong with it."""
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise DesignError(f"has {size} bytes, more than a design may have")
        return from_bytes(path.read_bytes(), allow_include=allow_include, trust_model=trust_model)
    except OSError as error:
        raise DesignError(f"cannot be read: {error}", where=str(path)) from error
    except DesignError as error:
        at = f"{path}, {error.where}" if error.where else str(path)
        raise DesignError(error.what, where=at, remedy=error.remedy) from error


def from_bytes(
    data: bytes, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> Design:
    """Undo ``to_bytes``. Raises DesignError for anything it did not write."""
    if len(data) > _MOST_BYTES:
        raise DesignError(f"has {len(data)} bytes, more than a design may have")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, len(data))
            document = _parse(archive.read(_JSON))
            count = len(members) - 1
            arrays = [_array(archive.read(_member(i)), _member(i)) for i in range(count)]
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise DesignError(
            f"is no design: {error}", remedy="designs are written by Design.save"
        ) from error
    return from_document(document, arrays, allow_include=allow_include, trust_model=trust_model)


def digest(design: Design) -> str:
    """Return the SHA-256 of all that changes a result.

    Stable across processes, platforms and Python versions; where the model's source
    lay, what compiled it and the kept examples do not count.
    """
    document, arrays = to_document(design, examples=False)
    sha = hashlib.sha256()
    sha.update(f"spicenn design {FORMAT}\n".encode())
    sha.update(_canonical(_without(document)))
    for array in arrays:
        plain = _plain(array)
        sha.update(f"\n{plain.dtype.str} {plain.shape}\n".encode())
        sha.update(plain.tobytes())
    return sha.hexdigest()


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if k not in _NOT_HASHED}
    if isinstance(value, list):
        return [_without(item) for item in value]
    return value


def _canonical(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _plain(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Little-endian, in C order: the same bytes on every machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)


def _member(index: int) -> str:
    return f"arrays/{index}.npy"


def _members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(names) > _MOST_MEMBERS:
        raise DesignError(f"holds {len(names)} members, more than a design may have")
    expected = {_JSON, *(_member(i) for i in range(len(names) - 1))}
    if set(names) != expected or len(set(names)) != len(names):
        raise DesignError(
            "is no design: its members are not design.json and arrays/0.npy, arrays/1.npy, …",
            remedy="designs are written by Design.save",
        )
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise DesignError("is compressed or encrypted", where=member.filename)
        if member.file_size != member.compress_size:
            raise DesignError("claims a size that it has not", where=member.filename)
    if sum(member.file_size for member in members) > size:
        raise DesignError("its members claim more bytes than the file has")
    if archive.getinfo(_JSON).file_size > _MOST_JSON_BYTES:
        raise DesignError("is larger than a design's may be", where=_JSON)
    return members


def _parse(text: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        document = json.loads(text.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DesignError(f"is not JSON: {error}", where=_JSON) from error
    if not isinstance(document, dict):
        raise DesignError("is not a JSON object", where=_JSON)
    version = document.pop("format", None)
    if version != FORMAT:
        raise DesignError(
            f"format {version!r} is unknown",
            where=_JSON,
            remedy=f"this version of spicenn reads format {FORMAT}",
        )
    return document


def _array(data: bytes, where: str) -> NDArray[np.generic]:
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"npy format {version} is unknown")
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    except (ValueError, EOFError) as error:
        raise DesignError(f"is no array: {error}", where=where) from error
    if dtype.hasobject or dtype.kind not in "fiub" or dtype.itemsize > 8 or fortran:
        raise DesignError(f"dtype {dtype} or its order is not allowed", where=where)
    if len(shape) > _MOST_AXES or any(length < 0 for length in shape):
        raise DesignError(f"shape {shape} is not allowed", where=where)
    count = 1
    for length in shape:
        count *= length
    body = data[stream.tell() :]
    if len(body) != count * dtype.itemsize:
        raise DesignError(
            f"holds {len(body)} bytes where {shape} of {dtype} needs {count * dtype.itemsize}",
            where=where,
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
