"""CIFAR-10, from its binary version or through OpenML. The python version is pickle: refused."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicenn.datasets.checksums import Checksums, expected
from spicenn.datasets.images import Images, Progress, check_limit, scaled
from spicenn.datasets.openml import Listing, fetch
from spicenn.datasets.reading import BROKEN, Readable, check_name, read_exactly
from spicenn.errors import InputError

_ARCHIVE = "cifar-10-binary.tar.gz"
_INNER = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{index}.bin" for index in range(1, 6))
_TEST = "test_batch.bin"
_BATCHES = (*_TRAIN, _TEST)
_PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "data_batch_1", "batches.meta")
# The authors' page publishes the archive's MD5; the files in it have a known length alone.
_PUBLISHED = {_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"}

_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_RECORDS = 10_000
_MOST_BYTES = 256 * 2**20
_MOST_MEMBERS = 64
_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

_LISTING = Listing(
    "CIFAR_10", 1, _SHAPE, 50_000, 10_000, _CLASSES, f"the binary version, {_ARCHIVE}"
)


def load_cifar10(
    folder: str | Path | None = None,
    *,
    limit: int | None = None,
    verify: bool = True,
    checksums: Mapping[str, str] | None = None,
    data_home: str | Path | None = None,
    progress: Progress | None = None,
) -> Images:
    """Return CIFAR-10: 50,000 images to train with, 10,000 to test with, (sample, 3, 32, 32).

    Parameters
    ----------
    folder : the binary version: its archive, a folder with it, or the folder of its six
        .bin files; without one, OpenML's copy is fetched and kept. OpenML's has one
        table: its first 50,000 rows train and the others test.
    limit : at most so many images of either part, the first ones; None is all.
    verify : compare the archive with its published MD5, or the lengths of .bin files,
        which have none, with the original's.
    checksums : file name to digest, in place of what is known.
    data_home : where OpenML's copy is kept; None is scikit-learn's default.
    progress : called after each of the six batches.

    All of it takes 737 MB, 0.2 GB more while it is read, and 2 GB for a while where it comes
    from OpenML, whose first load takes minutes.

    Raises InputError for files that are missing, damaged, pickled or not CIFAR-10,
    SpicennError where there is no network. Source: Krizhevsky, Learning multiple layers
    of features from tiny images, technical report, Toronto (2009).
    """
    check_limit(limit)
    if folder is None:
        if checksums:
            raise InputError("checksums are for the files of a folder", remedy="give a folder")
        return fetch(_LISTING, data_home, limit)
    source = _find(Path(folder))
    names = _BATCHES if source.is_dir() else (source.name, *_BATCHES)
    sums = expected(_PUBLISHED, checksums, verify=verify, names=names)
    if source.is_dir():
        read = _from_folder(source, sums, original=verify)
    else:
        sums.check_file(source)
        read = _from_archive(source, sums)
    done = 0

    def part(names: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        nonlocal done
        pixels, labels, left = [], [], limit
        for name in names:
            if left is None or left > 0:
                x, y = _parse(read(name), f"{source}, {name}", left)
                left = None if left is None else left - len(y)
                pixels.append(x)
                labels.append(y)
            done += 1
            if progress is not None:
                progress(done, len(_BATCHES))
        return scaled(np.concatenate(pixels)), np.concatenate(labels).astype(np.int64)

    return Images(*part(_TRAIN), *part((_TEST,)), _CLASSES)


def _find(given: Path) -> Path:
    """The archive, or the folder with the .bin files."""
    if given.is_file() and given.name.endswith((".tar.gz", ".tgz")):
        if given.name in _PICKLED:
            raise _pickled(str(given))
        return given
    for place in (given / _ARCHIVE, given / _INNER, given):
        if place.is_file() or any((place / name).is_file() for name in _BATCHES):
            return place
    if any((given / name).exists() for name in _PICKLED):
        raise _pickled(str(given))
    raise InputError(
        f"holds neither {_ARCHIVE} nor data_batch_1.bin",
        where=str(given),
        remedy="give the binary version of CIFAR-10, packed or not",
    )


def _pickled(where: str) -> InputError:
    return InputError(
        "is the python version of CIFAR-10, which is pickle: reading it could run any code",
        where=where,
        remedy=f"fetch the binary version, {_ARCHIVE}",
    )


def _from_folder(folder: Path, sums: Checksums, *, original: bool) -> Callable[[str], bytes]:
    for name in _BATCHES:
        path = folder / name
        if not path.is_file():
            raise InputError(f"there is no {name}", where=str(folder))
        size = path.stat().st_size
        if size > _RECORD * _RECORDS or (
            original and name not in sums and size != _RECORD * _RECORDS
        ):
            raise InputError(
                f"has {size} bytes, the original has {_RECORD * _RECORDS}",
                where=str(path),
                remedy="fetch the file again; for fewer images, verify=False",
            )
        sums.check_file(path)
    return lambda name: (folder / name).read_bytes()


def _from_archive(path: Path, sums: Checksums) -> Callable[[str], bytes]:
    """Read the six members of a tar archive, in the order in which they come."""
    found: dict[str, bytes] = {}
    try:
        with (
            closing(gzip.open(path)) as stream,
            tarfile.open(fileobj=_Bounded(stream, str(path)), mode="r|") as archive,  # type: ignore[call-overload]
        ):
            for count, member in enumerate(archive):
                if count >= _MOST_MEMBERS:
                    raise InputError(f"holds over {_MOST_MEMBERS} members", where=str(path))
                _take(archive, member, str(path), found)
    except (*BROKEN, OSError, tarfile.TarError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"is no archive that can be read: {error}",
            where=str(path),
            remedy="fetch the file again",
        ) from error
    for name in _BATCHES:
        if name not in found:
            raise InputError(f"there is no {name}", where=str(path))
        sums.check_data(name, found[name], f"{path}, {name}")
    return found.__getitem__


def _take(
    archive: tarfile.TarFile, member: tarfile.TarInfo, where: str, found: dict[str, bytes]
) -> None:
    check_name(member.name, where)
    folder, _, name = member.name.rpartition("/")
    if "cifar-10-batches-py" in member.name:
        raise _pickled(where)
    if member.isdir():
        return
    # Sparse members, links and devices are none of these.
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise InputError(f"member {member.name!r} is no plain file", where=where)
    if member.size > _RECORD * _RECORDS:
        raise InputError(
            f"member {member.name!r} has {member.size} bytes, the original's have at most "
            f"{_RECORD * _RECORDS}",
            where=where,
        )
    if folder not in ("", ".", _INNER, f"./{_INNER}") or name not in _BATCHES:
        return
    if name in found:
        raise InputError(f"holds {name} twice", where=where)
    stream = archive.extractfile(member)
    assert stream is not None  # only links and folders have none
    found[name] = read_exactly(stream, member.size, f"{where}, {name}")


class _Bounded:
    """A stream that refuses to give more than an original archive holds, unpacked."""

    def __init__(self, stream: Readable, where: str) -> None:
        self._stream, self._where, self._left = stream, where, _MOST_BYTES

    def read(self, size: int) -> bytes:
        # Headers of a tar archive can ask for any size.
        if size < 0 or size > self._left:
            raise InputError(
                f"unpacks to more than {_MOST_BYTES} bytes",
                where=self._where,
                remedy="this is no original archive",
            )
        data = self._stream.read(size)
        self._left -= len(data)
        return data


def _parse(
    data: bytes, where: str, limit: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A label's byte and 3072 of pixels, red, green, blue, row by row."""
    if not data or len(data) % _RECORD:
        raise InputError(
            f"{len(data)} bytes are no whole number of records of {_RECORD}",
            where=where,
            remedy="fetch the file again",
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)[:limit]
    labels = records[:, 0]
    if labels.max() >= len(_CLASSES):
        raise InputError(f"holds label {labels.max()}", where=where, remedy="0 … 9 are allowed")
    return records[:, 1:].reshape(-1, *_SHAPE), labels
