"""Compiled Verilog-A (OSDI): native code that ngspice loads, by path and SHA-256."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path

from spicenn.errors import NetlistError

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class CompiledModel:
    """A shared library of OSDI models, as OpenVAF compiles them from Verilog-A.

    It is machine code with all rights of the user. The simulator's process loads exactly
    the bytes whose digest this is, or refuses.

    Parameters
    ----------
    path : of the library, absolute.
    sha256 : digest of its bytes, in hexadecimal.
    trust_model : must be True; it is not kept.

    Raises NetlistError. ``compiled_model`` makes one from a file.
    """

    path: str
    sha256: str
    trust_model: InitVar[bool] = False

    def __post_init__(self, trust_model: bool) -> None:
        if not isinstance(self.path, str) or not Path(self.path).is_absolute():
            raise NetlistError(f"osdi: {self.path!r} is not an absolute path")
        if not isinstance(self.sha256, str) or not _DIGEST.match(self.sha256):
            raise NetlistError(f"osdi: {self.sha256!r} is not a SHA-256", where=self.path)
        if trust_model is not True:
            raise NetlistError(
                "a compiled model is native code, which runs with all your rights",
                where=self.path,
                remedy="if you trust it, say so: trust_model=True, or --trust-model",
            )


def compiled_model(
    path: str | Path,
    *,
    allow_include: Sequence[str | Path],
    trust_model: bool = False,
    sha256: str | None = None,
) -> CompiledModel:
    """Name a compiled model by its path and digest.

    Parameters
    ----------
    allow_include : folders, one of which must hold the file.
    trust_model : allow it to run.
    sha256 : what its digest must be, None for any.

    Raises NetlistError where the file is not there, lies elsewhere, is not trusted or has
    changed.
    """
    if not trust_model:
        CompiledModel(str(Path(path).absolute()), "0" * 64)  # says what is missing, reads nothing
    real = inside(Path(path), allow_include)
    data = read_bytes(real, MOST_BYTES)
    if sha256 is not None:
        _check_digest(data, sha256, str(real))
    return CompiledModel(str(real), hashlib.sha256(data).hexdigest(), trust_model=trust_model)


def verified_bytes(model: CompiledModel) -> bytes:
    """Return a compiled model's bytes. Raises NetlistError where they are not those named."""
    data = read_bytes(Path(model.path), MOST_BYTES)
    _check_digest(data, model.sha256, model.path)
    return data


def _check_digest(data: bytes, sha256: str, where: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise NetlistError(
            f"the compiled model has changed: its SHA-256 is {found}, not {sha256}",
            where=where,
            remedy="restore the file, or make the cell anew from this one",
        )


def inside(path: Path, folders: Sequence[str | Path]) -> Path:
    """Return the real path of a file, all links resolved, that lies in one of the folders.

    Raises NetlistError where it does not exist or lies elsewhere.
    """
    if isinstance(folders, str | Path):
        raise NetlistError(
            f"allow_include = {str(folders)!r} is not a list of folders",
            remedy=f"write allow_include=[{str(folders)!r}]",
        )
    try:
        real = path.resolve(strict=True)
        roots = [Path(folder).resolve(strict=True) for folder in folders]
    except (OSError, RuntimeError, ValueError) as error:
        raise NetlistError(f"cannot be found: {error}", where=str(path)) from error
    if not any(real.is_relative_to(root) for root in roots):
        raise NetlistError(
            "lies outside of the folders that may be read" if roots else "may not be read",
            where=str(path) if real == path else f"{path} (which is {real})",
            remedy="name its folder: allow_include=[folder], or --allow-include FOLDER",
        )
    return real


def read_bytes(path: Path, most: int) -> bytes:
    """Read a plain file of at most that size. Raises NetlistError."""
    try:
        # Not through a link put there since, and no waiting for the writer of a pipe.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NetlistError("is not a plain file", where=str(path))
            data = file.read(most + 1)
    except OSError as error:
        raise NetlistError(f"cannot be read: {error}", where=str(path)) from error
    if len(data) > most:
        raise NetlistError(f"has more than {most} bytes", where=str(path))
    return data
