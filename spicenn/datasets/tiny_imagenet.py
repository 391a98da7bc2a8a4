"""Tiny ImageNet, from its folders or its archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from spicenn.datasets.checksums import expected
from spicenn.datasets.folders import in_turn, is_image, read_images
from spicenn.datasets.images import Images, Progress, check_limit
from spicenn.datasets.reading import Source, open_source
from spicenn.errors import InputError

_ARCHIVE = "tiny-imagenet-200.zip"
_INNER = "tiny-imagenet-200"
_ANNOTATIONS = "val/val_annotations.txt"
# Of the course page's archive, as the public loaders of it have it.
_PUBLISHED = {_ARCHIVE: "90528d7ca1a48142e341f4ef8d21d0de"}


def load_tiny_imagenet(
    folder: str | Path,
    *,
    limit: int | None = None,
    verify: bool = True,
    checksums: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Images:
    """Return Tiny ImageNet: 100,000 images of 200 classes, (sample, 3, 64, 64).

    The 10,000 images of its validation part are ``test``: the labels of what it calls its
    test part were never published.

    Parameters
    ----------
    folder : the folder with ``train`` and ``val``, the one above it, the archive
        tiny-imagenet-200.zip, or a folder with it. An archive is not unpacked.
    limit : at most so many images of either part; None is all.
    verify : compare the archive with its published MD5; folders have none.
    checksums : digests by the archive's name, or by names relative to the folder.
    progress : called after each image of a part, with the images of that part.

    Training images come in turn from each class, so that the first n are as balanced as
    they can be; validation images as they are listed. Classes are WordNet's numbers,
    sorted. All of it takes 5.4 GB and some minutes.

    Raises InputError for files that are missing, damaged or not Tiny ImageNet. Source: Le
    and Yang, Tiny ImageNet visual recognition challenge, Stanford CS 231N (2015).
    """
    check_limit(limit)
    path = _find(Path(folder))
    with open_source(path) as source:
        own = [path.name] if path.is_file() else []
        sums = expected(_PUBLISHED, checksums, verify=verify, names=[*source.names, *own])
        if path.is_file():
            sums.check_file(path)
        base = _base(source)
        classes, files = _training(source, base)
        held = _validation(source, base, classes)
        train = read_images(source, in_turn(files)[:limit], sums, channels=3, progress=progress)
        test = read_images(source, held[:limit], sums, channels=3, progress=progress)
    return Images(*train, *test, classes)


def _find(given: Path) -> Path:
    """The folder, or the archive where it was not unpacked."""
    unpacked = any((place / "train").is_dir() for place in (given, given / _INNER))
    if given.is_dir() and not unpacked and (given / _ARCHIVE).is_file():
        return given / _ARCHIVE
    return given


def _base(source: Source) -> str:
    for base in ("", f"{_INNER}/"):
        if base + _ANNOTATIONS in source.names:
            return base
    raise InputError(
        f"holds no {_ANNOTATIONS}",
        where=source.where,
        remedy=f"give the folder {_INNER} with train and val in it, or {_ARCHIVE}",
    )


def _training(source: Source, base: str) -> tuple[tuple[str, ...], list[list[str]]]:
    found: dict[str, list[str]] = {}
    for name in source.names:
        parts = PurePosixPath(name.removeprefix(base)).parts
        if len(parts) == 4 and (parts[0], parts[2]) == ("train", "images") and is_image(name):
            found.setdefault(parts[1], []).append(name)
    listed = base + "wnids.txt"
    if listed in source.names:
        wanted = set(_text(source, listed).split())
        if missing := wanted - found.keys():
            raise InputError(
                f"class {min(missing)} is listed and has no images",
                where=f"{source.where}, {listed}",
            )
        found = {name: files for name, files in found.items() if name in wanted}
    if not found:
        raise InputError("holds no train/CLASS/images", where=source.where)
    classes = tuple(sorted(found))
    return classes, [found[name] for name in classes]


def _validation(source: Source, base: str, classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Names of the images with their labels; a line is NAME, CLASS and a box, by tabs."""
    names, labels = set(source.names), {name: label for label, name in enumerate(classes)}
    files = []
    for number, line in enumerate(_text(source, base + _ANNOTATIONS).splitlines(), 1):
        where = f"{source.where}, {base}{_ANNOTATIONS}, line {number}"
        words = line.split("\t")
        if len(words) < 2 or words[1] not in labels:
            raise InputError("names no class that has training images", where=where)
        name = f"{base}val/images/{words[0]}"
        # Only what was listed is read: a name with ".." in it is in no list.
        if name not in names:
            raise InputError(f"there is no image {words[0]!r}", where=where)
        files.append((name, labels[words[1]]))
    return files


def _text(source: Source, name: str) -> str:
    try:
        return source.read(name).decode("ascii")
    except UnicodeDecodeError as error:
        raise InputError("is no plain text", where=f"{source.where}, {name}") from error
