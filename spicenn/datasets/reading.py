"""Bytes from files that may be damaged or hostile: bounded, and never extracted.

A folder and a zip archive look alike from here: relative names and a way to read one.
"""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from spicenn.errors import InputError

_BLOCK = 2**20
# Far above what an image or a list of labels needs, far below what fills a machine.
MOST_MEMBER_BYTES = 64 * 2**20
_MOST_ARCHIVE_BYTES = 16 * 2**30
_MOST_FILES = 2_000_000
_MOST_DEPTH = 8

# What damaged compressed data raise.
BROKEN = (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError)


class Readable(Protocol):
    """A binary stream, as far as needed here."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Source:
    """Files of a folder or an archive.

    where : its path, for messages.
    names : relative, with slashes, sorted.
    read : returns the bytes of one of them.
    """

    where: str
    names: tuple[str, ...]
    read: Callable[[str], bytes]


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a folder or a zip archive. Raises InputError where it is neither or not safe."""
    if path.is_dir():
        yield _folder(path)
    elif path.is_file():
        with _archive(path) as archive:
            yield archive
    else:
        raise InputError("is no folder or archive", where=str(path))


def read_exactly(stream: Readable, size: int, where: str) -> bytes:
    """Read so many bytes, or raise InputError; memory grows only with what is there."""
    parts: list[bytes] = []
    left = size
    try:
        while left and (part := stream.read(min(left, _BLOCK))):
            parts.append(part)
            left -= len(part)
    except (*BROKEN, OSError) as error:
        raise InputError(f"cannot be read: {error}", where=where, remedy=_AGAIN) from error
    if left:
        raise InputError(f"ends after {size - left} of {size} bytes", where=where, remedy=_AGAIN)
    return b"".join(parts)


def check_name(name: str, where: str) -> None:
    """Raise InputError for an archive member whose name leads out of a folder."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or "\0" in name:
        raise InputError(
            f"member {name!r} leads out of the archive",
            where=where,
            remedy="this is no original archive: do not unpack it",
        )


_AGAIN = "fetch the file again"


def _folder(folder: Path) -> Source:
    root = folder.resolve()
    names: list[str] = []

    def walk(prefix: str, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise InputError(f"folders are nested deeper than {_MOST_DEPTH}", where=str(folder))
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_symlink() and not (root / name).resolve().is_relative_to(root):
                    raise InputError(
                        f"link {name!r} leads out of the folder",
                        where=str(folder),
                        remedy="copy what it points to",
                    )
                if entry.is_dir():
                    walk(name + "/", depth + 1)
                elif entry.is_file():
                    names.append(name)
                if len(names) > _MOST_FILES:
                    raise InputError(f"holds over {_MOST_FILES} files", where=str(folder))

    def read(name: str) -> bytes:
        where = str(folder / name)
        with (root / name).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            _check_size(size, where)
            return read_exactly(stream, size, where)

    try:
        walk("", 0)
    except OSError as error:
        raise InputError(f"cannot be read: {error}", where=str(folder)) from error
    return Source(str(folder), tuple(sorted(names)), read)


@contextmanager
def _archive(path: Path) -> Iterator[Source]:
    if path.stat().st_size > _MOST_ARCHIVE_BYTES:
        raise InputError("is larger than any archive read here", where=str(path))
    try:
        archive = zipfile.ZipFile(path)
    except (*BROKEN, OSError, ValueError) as error:
        raise InputError(f"is no zip archive: {error}", where=str(path), remedy=_AGAIN) from error
    with archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        if len(members) > _MOST_FILES:
            raise InputError(f"holds over {_MOST_FILES} files", where=str(path))
        for name, info in members.items():
            check_name(name, str(path))
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG) and not info.flag_bits & 1
            if not plain or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"member {name!r} is a link, encrypted or packed in an unusual way",
                    where=str(path),
                )

        def read(name: str) -> bytes:
            where = f"{path}, {name}"
            _check_size(members[name].file_size, where)
            try:
                # zipfile never gives more than the size that the directory states.
                with archive.open(members[name]) as stream:
                    return read_exactly(stream, members[name].file_size, where)
            except (*BROKEN, OSError, RuntimeError) as error:
                raise InputError(f"cannot be read: {error}", where=where, remedy=_AGAIN) from error

        yield Source(str(path), tuple(sorted(members)), read)


def _check_size(size: int, where: str) -> None:
    if size > MOST_MEMBER_BYTES:
        raise InputError(
            f"has {size} bytes, more than the {MOST_MEMBER_BYTES} that are read", where=where
        )
