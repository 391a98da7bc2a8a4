"""Data sets through scikit-learn's OpenML client, which keeps and verifies what it fetches."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from spicenn.datasets.images import Images, scaled
from spicenn.errors import InputError, SpicennError


@dataclass(frozen=True)
class Listing:
    """A data set as OpenML lists it: one row per image, the training images first.

    shape : (channel, height, width) of a row.
    training, tests : how many rows train and test.
    files : what a user without a network can give instead.
    """

    name: str
    version: int
    shape: tuple[int, int, int]
    training: int
    tests: int
    classes: tuple[str, ...]
    files: str


def fetch(listing: Listing, data_home: str | Path | None, limit: int | None) -> Images:
    """Fetch a data set, or take it from the cache in data_home.

    The client compares the file's MD5 with the one in its description at every load.
    Raises SpicennError where the service cannot be reached, InputError where what came
    is not the data set.
    """
    data = _fetch(listing, data_home)
    levels, labels = _levels(listing, data.data), _labels(listing, data.target)
    first = listing.training
    most = len(labels) if limit is None else limit
    train = slice(0, min(first, most))
    test = slice(first, first + min(listing.tests, most))
    return Images(
        scaled(levels[train]), labels[train], scaled(levels[test]), labels[test], listing.classes
    )


def _fetch(listing: Listing, data_home: str | Path | None) -> Any:
    from sklearn.datasets import fetch_openml

    where = f"OpenML, {listing.name} version {listing.version}"
    # Pixels then labels. Left to itself, the client takes eight bytes per pixel, and with
    # some versions of pandas it cannot read classes that are numbers.
    pixels = math.prod(listing.shape)
    types = {**dict.fromkeys(range(pixels), np.float32), pixels: str}
    try:
        with warnings.catch_warnings():
            # The client announces each further attempt; the error says it once.
            warnings.filterwarnings("ignore", "A network error occurred", UserWarning)
            warnings.filterwarnings("ignore", "Invalid cache, redownloading", RuntimeWarning)
            return fetch_openml(
                listing.name,
                version=listing.version,
                data_home=None if data_home is None else str(data_home),
                as_frame=False,
                parser="pandas",
                n_retries=1,
                delay=0.5,
                read_csv_kwargs={"dtype": types},
            )
    except (URLError, TimeoutError, ConnectionError, HTTPException) as error:
        raise SpicennError(
            f"the data set is not in the cache, and the service cannot be reached: {error}",
            where=where,
            remedy=f"connect to a network, or give a folder with {listing.files}",
        ) from error
    except OSError as error:
        raise InputError(
            f"the cache cannot be used: {error}",
            where=where,
            remedy="give a folder that can be written as data_home",
        ) from error
    except ValueError as error:
        raise InputError(
            f"what came is not the data set: {error}",
            where=where,
            remedy=f"remove the cache and try again, or give a folder with {listing.files}",
        ) from error


def _levels(listing: Listing, data: Any) -> NDArray[np.uint8]:
    rows = listing.training + listing.tests
    array = np.asarray(data)
    if array.dtype.kind not in "iuf" or array.shape != (rows, math.prod(listing.shape)):
        raise InputError(
            f"{array.dtype} of shape {array.shape} came where {rows} images of "
            f"{listing.shape} are expected",
            where=f"OpenML, {listing.name}",
        )
    # Looked at before the conversion, which would wrap what is outside.
    if not (array.min() >= 0 and array.max() <= 255):
        raise InputError("holds pixels outside 0 … 255", where=f"OpenML, {listing.name}")
    return array.astype(np.uint8).reshape(rows, *listing.shape)


def _labels(listing: Listing, target: Any) -> NDArray[np.int64]:
    # ARFF may quote the names of classes.
    names = [str(name).strip("'") for name in target]
    if unknown := set(names) - {str(label) for label in range(len(listing.classes))}:
        raise InputError(
            f"holds label {min(unknown)!r} for {len(listing.classes)} classes",
            where=f"OpenML, {listing.name}",
        )
    return np.array(names).astype(np.int64)
