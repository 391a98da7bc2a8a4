"""Where libngspice is."""

from __future__ import annotations

import ctypes.util
import os
import sys
from pathlib import Path

REMEDY = (
    "install libngspice 42 or newer (Debian, Ubuntu: apt install libngspice0; "
    "macOS: brew install libngspice), or set NGSPICE_LIBRARY_PATH to the file; "
    "'spicenn doctor' shows what was found"
)

OSDI_REMEDY = (
    "install an ngspice built with OSDI (configure --enable-osdi; Debian's and Ubuntu's "
    "libngspice0 42 and newer have it), or use a cell without compiled models"
)


def candidates() -> list[str]:
    """Names and paths to try, in order. NGSPICE_LIBRARY_PATH, where set, is the only one."""
    chosen = os.environ.get("NGSPICE_LIBRARY_PATH")
    if chosen:
        return [chosen]
    if sys.platform == "darwin":
        folders = ("/opt/homebrew/lib", "/usr/local/lib", "/opt/local/lib")
        paths = [str(Path(folder) / "libngspice.dylib") for folder in folders]
        names = ["libngspice.dylib", *(path for path in paths if Path(path).exists())]
    else:
        names = ["libngspice.so.0", "libngspice.so"]
    return names


def last_resort() -> str | None:
    """What the system's own search finds; slow, so asked for last. None where one is chosen."""
    if os.environ.get("NGSPICE_LIBRARY_PATH"):
        return None
    return ctypes.util.find_library("ngspice")
