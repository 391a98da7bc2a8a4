"""Says which libngspice this machine loads: one JSON line, for ``setup_machine.py``.

Runs in a process of its own, because a broken library may take its process with it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
import sys
from pathlib import Path


def candidates() -> list[str]:
    """Names and paths under which the library may be found, most wanted first."""
    named = [os.environ.get("NGSPICE_LIBRARY_PATH"), ctypes.util.find_library("ngspice")]
    usual = ["libngspice.so.0", "libngspice.so", "libngspice.dylib"]
    folders = ["/opt/homebrew/lib", "/usr/local/lib", "/opt/local/lib"]
    paths = [str(Path(folder) / "libngspice.dylib") for folder in folders]
    return [name for name in [*named, *usual, *paths] if name]


def banner(library: ctypes.CDLL) -> str:
    """What the library says about itself."""
    lines: list[str] = []
    text_callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)

    def keep(text: bytes, _ident: int, _user: object) -> int:
        lines.append(text.decode(errors="replace"))
        return 0

    callback = text_callback(keep)
    library.ngSpice_Init(callback, None, None, None, None, None, None)
    library.ngSpice_Command(b"version -f")
    return "\n".join(lines)


def describe(text: str) -> dict[str, object]:
    """Version and solver out of a banner."""
    version = re.search(r"ngspice-(\d+)", text)
    return {
        "version": version.group(1) if version else "",
        "klu": "Compiled with KLU" in text,
    }


def main() -> int:
    for name in candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        print(json.dumps({"library": name, **describe(banner(library))}), flush=True)
        # The library's own end-of-process handlers are none of our business.
        os._exit(0)
    print(json.dumps({"library": "", "version": "", "klu": False}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
