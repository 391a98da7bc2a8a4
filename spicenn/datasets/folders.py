"""Images in a folder per class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath

import numpy as np

from spicenn.datasets.checksums import Checksums, expected
from spicenn.datasets.decode import Channels, decode
from spicenn.datasets.images import Images, Labels, Pixels, Progress, check_limit, scaled
from spicenn.datasets.reading import Source, open_source
from spicenn.errors import InputError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


def load_images(
    folder: str | Path,
    test: str | Path | None = None,
    *,
    channels: Channels = 3,
    size: tuple[int, int] | None = None,
    limit: int | None = None,
    checksums: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Images:
    """Return the images of a folder that has one folder per class.

    Parameters
    ----------
    folder : CLASS/NAME.png, .jpg or .jpeg, or a zip archive of that; other files are
        passed over. Classes are numbered in the order of their names.
    test : a second folder, of the same classes, to test with; without one the result has
        no test images.
    channels : 3 for colours, 1 for grey levels.
    size : (height, width) to scale to; without it all images must have one size.
    limit : at most so many images of either folder; None is all.
    checksums : digests by relative name, as in ``{"cat/1.png": "…"}``.
    progress : called after each image of a folder, with the images of that folder.

    Images come in turn from each class, each class's sorted by name: the first n are as
    balanced as they can be. Memory: four bytes per pixel.

    Raises InputError for folders without images, images that cannot be read or differ in
    size, a link that leads elsewhere, or classes that differ between the folders.
    """
    check_limit(limit)
    if channels not in (1, 3):
        raise InputError(f"channels = {channels!r}", remedy="1 or 3")
    with open_source(Path(folder)) as source:
        classes, files = by_class(source)
        sums = expected({}, checksums, verify=True, names=source.names)
        train = read_images(
            source, in_turn(files)[:limit], sums, channels=channels, size=size, progress=progress
        )
    if test is None:
        empty = np.zeros((0, *train[0].shape[1:]), np.float32)
        return Images(*train, empty, np.zeros(0, np.int64), classes)
    with open_source(Path(test)) as source:
        theirs, files = by_class(source)
        if theirs != classes:
            raise InputError(
                f"classes {sorted(set(theirs) ^ set(classes))} are in one folder alone",
                where=str(test),
            )
        held = read_images(
            source,
            in_turn(files)[:limit],
            Checksums({}),
            channels=channels,
            size=size,
            progress=progress,
        )
    return Images(*train, *held, classes)


def by_class(source: Source) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names of the classes, and of every class's images. Raises InputError without any."""
    found: dict[str, list[str]] = {}
    for name in source.names:
        parts = PurePosixPath(name)
        if len(parts.parts) == 2 and is_image(name):
            found.setdefault(parts.parts[0], []).append(name)
    if not found:
        raise InputError(
            "holds no images in folders",
            where=source.where,
            remedy="one folder per class, with .png, .jpg or .jpeg files",
        )
    classes = tuple(sorted(found))
    return classes, [found[name] for name in classes]


def is_image(name: str) -> bool:
    """Whether a name is that of an image, and not one that an operating system hides."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def in_turn(files: Iterable[Sequence[str]]) -> list[tuple[str, int]]:
    """Names with their class's number: the first of every class, the second of every class, …"""
    labelled = ([(name, label) for name in names] for label, names in enumerate(files))
    return [item for item in chain.from_iterable(zip_longest(*labelled)) if item is not None]


def read_images(
    source: Source,
    files: Sequence[tuple[str, int]],
    sums: Checksums,
    *,
    channels: Channels,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Pixels, Labels]:
    """Pixels (sample, channel, height, width) and labels (sample,) of the files named.

    Raises InputError where there are none, or one has another size than the first.
    """
    if not files:
        raise InputError("holds no images", where=source.where)
    pixels: Pixels | None = None
    for index, (name, _) in enumerate(files):
        where = f"{source.where}, {name}"
        data = source.read(name)
        sums.check_data(name, data, where)
        levels = decode(data, where, channels=channels, size=size)
        if pixels is None:
            pixels = np.empty((len(files), *levels.shape), np.float32)
        if levels.shape != pixels.shape[1:]:
            raise InputError(
                "has {}×{} pixels, the first image {}×{}".format(
                    *levels.shape[1:], *pixels.shape[2:]
                ),
                where=where,
                remedy="scale all to one size",
            )
        pixels[index] = scaled(levels)
        if progress is not None:
            progress(index + 1, len(files))
    assert pixels is not None
    return pixels, np.array([label for _, label in files], np.int64)
