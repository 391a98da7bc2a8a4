"""MNIST, from its four idx files or through OpenML."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.datasets.checksums import expected
from spicenn.datasets.idx import read_idx
from spicenn.datasets.images import Images, Progress, check_limit, scaled
from spicenn.datasets.openml import Listing, fetch
from spicenn.errors import InputError

_PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_CLASSES = tuple("0123456789")

# MD5 of the files as distributed (as torchvision has them), and of what is in them.
_PUBLISHED = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
# Some archives unpack to names with a dot.
_PUBLISHED |= {
    name.replace("-idx", ".idx"): digest
    for name, digest in _PUBLISHED.items()
    if not name.endswith(".gz")
}

_LISTING = Listing(
    "mnist_784", 1, (1, 28, 28), 60_000, 10_000, _CLASSES, "the four idx files, .gz or not"
)


def load_mnist(
    folder: str | Path | None = None,
    *,
    limit: int | None = None,
    verify: bool = True,
    checksums: Mapping[str, str] | None = None,
    data_home: str | Path | None = None,
    progress: Progress | None = None,
) -> Images:
    """Return MNIST: 60,000 digits to train with, 10,000 to test with, (sample, 1, 28, 28).

    Parameters
    ----------
    folder : where the four idx files lie, packed (.gz) or not; without one, OpenML's
        copy is fetched and kept.
    limit : at most so many images of either part, the first ones; None is all. From a
        folder only these are held in memory.
    verify : compare the files with their published MD5.
    checksums : file name to digest, in place of the published ones.
    data_home : where OpenML's copy is kept; None is scikit-learn's default.
    progress : called after each of the four files.

    All of it takes 220 MB, and 0.6 GB for a while where it comes from OpenML.

    Raises InputError for files that are missing, damaged or not MNIST, SpicennError where
    there is no network. Source: LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86, 2278
    (1998).
    """
    check_limit(limit)
    if folder is None:
        if checksums:
            raise InputError("checksums are for the files of a folder", remedy="give a folder")
        return fetch(_LISTING, data_home, limit)
    paths = [_find(Path(folder), part) for part in _PARTS]
    sums = expected(_PUBLISHED, checksums, verify=verify, names=[path.name for path in paths])
    arrays: list[NDArray[Any]] = []
    for path in paths:
        sums.check_file(path)
        arrays.append(_read(path, limit))
        if progress is not None:
            progress(len(arrays), len(paths))
    for path, array in zip(paths, arrays, strict=True):
        _check(path, array)
    (train, train_labels, test, test_labels) = arrays
    return Images(
        scaled(train[:, np.newaxis]),
        train_labels.astype(np.int64),
        scaled(test[:, np.newaxis]),
        test_labels.astype(np.int64),
        _CLASSES,
    )


def _find(folder: Path, part: str) -> Path:
    names = [f"{part}-ubyte.gz", f"{part}-ubyte", f"{part.replace('-idx', '.idx')}-ubyte"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"holds no {part}-ubyte, packed or not",
        where=str(folder),
        remedy="give the folder of the four original files",
    )


def _read(path: Path, limit: int | None) -> NDArray[Any]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return read_idx(stream, where=str(path), limit=limit)
    except OSError as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error


def _check(path: Path, array: NDArray[Any]) -> None:
    shape = (28, 28) if "idx3" in path.name else ()
    if array.dtype != np.uint8 or array.shape[1:] != shape:
        raise InputError(
            f"holds {array.dtype} of shape {array.shape}, expected uint8 (sample"
            + "".join(f", {length}" for length in shape)
            + ")",
            where=str(path),
        )
