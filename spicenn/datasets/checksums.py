"""Whether a file is the one that was published."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spicenn.errors import InputError

_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}


@dataclass(frozen=True)
class Checksums:
    """Expected digests by file name, in hexadecimal; the length tells the algorithm."""

    expected: Mapping[str, str]

    def __contains__(self, name: str) -> bool:
        return name in self.expected

    def check_file(self, path: Path) -> None:
        """Raise InputError where the file is not the one expected under its name."""
        if path.name in self.expected:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, lambda: _hash(self.expected[path.name]))
            self._compare(path.name, digest.hexdigest(), str(path))

    def check_data(self, name: str, data: bytes, where: str) -> None:
        """Raise InputError where the data are not those expected under the name."""
        if name in self.expected:
            digest = _hash(self.expected[name])
            digest.update(data)
            self._compare(name, digest.hexdigest(), where)

    def _compare(self, name: str, found: str, where: str) -> None:
        expected = self.expected[name].lower()
        if found != expected:
            raise InputError(
                f"{_ALGORITHMS[len(expected)]} checksum is {found}, expected {expected}",
                where=where,
                remedy="fetch the file again; for other data under this name give its "
                "checksum as checksums={...}, or verify=False",
            )


def expected(
    published: Mapping[str, str],
    given: Mapping[str, str] | None,
    *,
    verify: bool,
    names: Iterable[str],
) -> Checksums:
    """Join what was published with what the caller expects, which counts more.

    names : of the files there are, so that a mistyped one does not pass for verified.

    Raises InputError for a digest of no known algorithm, a file that is not there, or
    digests together with ``verify=False``.
    """
    if given and not verify:
        raise InputError("checksums are given, and verify=False", remedy="leave one out")
    for name, digest in (given or {}).items():
        hexadecimal = isinstance(digest, str) and not set(digest.lower()) - set("0123456789abcdef")
        if not hexadecimal or len(digest) not in _ALGORITHMS:
            raise InputError(
                f"{digest!r} is no checksum",
                where=f"checksums, {name}",
                remedy="allowed, in hexadecimal: " + ", ".join(_ALGORITHMS.values()),
            )
    if unknown := set(given or {}) - set(names):
        raise InputError(f"there is no {sorted(unknown)[0]!r}", where="checksums")
    return Checksums({**published, **(given or {})} if verify else {})


def _hash(digest: str) -> hashlib._Hash:
    # Published digests are mostly MD5: they find damage, and that is what they are used for.
    return hashlib.new(_ALGORITHMS[len(digest)], usedforsecurity=False)
