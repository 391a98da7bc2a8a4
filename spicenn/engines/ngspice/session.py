"""libngspice through PySpice's binding: the only module that touches it.

PySpice is untyped; the names used of it are ``NgSpiceShared`` and its ``ffi``.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.library import OSDI_REMEDY, REMEDY, candidates, last_resort
from spicenn.errors import EngineError, NgspiceNotFound, SpicennError

with warnings.catch_warnings():
    # PySpice 1.5 holds invalid escape sequences.
    warnings.simplefilter("ignore")
    from PySpice.Spice.NgSpice.Shared import NgSpiceShared, ffi

# Longer ones overrun a buffer in ngspice 46 (1,024 bytes), which then executes what
# it finds there.
LONGEST_COMMAND = 900
_KEPT_LINES = 400
# Commands after which ngspice's record of them is dropped: it takes 200 bytes each.
_COMMANDS_KEPT = 500
# Quantities read before they are forgotten: the more there are in the plot the longer each
# takes, and forgetting takes a command.
_AT_ONCE = 8
# What ngspice's command line takes for a word as it is.
_WORD = re.compile(r"[A-Za-z0-9_./+-]+\Z")


class LiveReader(NamedTuple):
    """Names of quantities to be read, and the command that takes them off the plot again."""

    names: tuple[bytes, ...]
    forget: bytes


class Session(NgSpiceShared):  # type: ignore[misc]
    """One libngspice in this process, with its messages kept and inputs served from memory.

    An ``external`` source named ``vi_<i>`` takes ``inputs[point][i]``, where point
    counts the accepted points of the analysis. Raises NgspiceNotFound.
    """

    def __init__(self) -> None:
        logging.getLogger("PySpice").setLevel(logging.CRITICAL)
        self.messages: deque[bytes] = deque(maxlen=_KEPT_LINES)
        self.dead = False
        self._forgotten = 0
        self._points: list[list[float]] = [[]]
        self._point = 0
        self._index: dict[bytes, int] = {}
        self._compiled: set[str] = set()
        super().__init__(send_data=True)
        self._command = self._ngspice_shared.ngSpice_Command
        # Words that are no command would otherwise go to a shell.
        self.execute(b"unset unixcom")
        self.messages.clear()
        # Without a path it complains of that, unless it is no command.
        self.execute(b"osdi")
        self.has_osdi = "no such command" not in self.text()
        self.messages.clear()

    # What PySpice calls on construction.

    def _load_library(self, verbose: bool) -> None:
        problems: list[str] = []
        for name in (*candidates(), None):
            path = last_resort() if name is None else name
            if path is None:
                continue
            self._library_path = path
            try:
                if problems:
                    self._ngspice_shared = ffi.dlopen(path)
                else:
                    super()._load_library(verbose)
            except OSError as error:
                problems.append(str(error))
                continue
            return
        raise NgspiceNotFound(
            "libngspice does not load: " + "; ".join(dict.fromkeys(problems)), remedy=REMEDY
        )

    def _init_ngspice(self, send_data: bool) -> None:
        # ngspice runs a .spiceinit of the current or the home directory, which would
        # change results. Its own switch for that, ngSpice_nospiceinit, crashes in 46.
        folder, home = Path.cwd(), os.environ.get("HOME")
        os.chdir("/")
        os.environ["HOME"] = "/"
        try:
            super()._init_ngspice(send_data)
        finally:
            os.chdir(folder)
            if home is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = home

    def _get_version(self) -> None:
        super()._get_version()
        text = self.exec_command("version -f")
        match = re.search(r"ngspice-([\w.+]+)", text)
        self.version = match.group(1) if match else "unknown"
        self.has_klu = "Compiled with KLU" in text

    # Callbacks: bound methods, because a static one has to look its session up.

    def _send_char(self, text: Any, _ident: int, _user: Any) -> int:
        line: bytes = ffi.string(text)
        self.messages.append(line)
        if line.startswith(b"stdout "):
            self._stdout.append(line[7:].decode("utf-8", "replace"))
        return 0

    def _send_stat(self, _text: Any, _ident: int, _user: Any) -> int:
        return 0

    def _exit(self, _status: int, _unload: bool, _quit: bool, _ident: int, _user: Any) -> int:
        self.dead = True
        return 0

    def _send_init_data(self, _data: Any, _ident: int, _user: Any) -> int:
        return 0

    def _send_data(self, _data: Any, _count: int, _ident: int, _user: Any) -> int:
        if self._point + 1 < len(self._points):
            self._point += 1
        return 0

    def _get_vsrc_data(self, voltage: Any, _time: float, name: Any, _ident: int, _user: Any) -> int:
        voltage[0] = self._points[self._point][self._index[ffi.string(name)]]
        return 0

    # What the child calls.

    def set_inputs(self, values: NDArray[np.float64]) -> None:
        """Voltages (point, wordline) that the external sources take in the next analysis."""
        self._points = values.tolist()
        self._point = 0
        if len(self._index) < values.shape[1]:
            self._index = {b"vi_%d" % i: i for i in range(values.shape[1])}

    def execute(self, command: bytes) -> None:
        """Run one command line. What came of it is in ``messages`` and in the plots."""
        if len(command) > LONGEST_COMMAND:
            raise ValueError(f"command of {len(command)} bytes")
        self._command(command)

    def forget(self) -> None:
        """Drop plots, and the control structures in which ngspice keeps every command it ran.

        Without this each command leaks 300 bytes, and ``alter`` gets slower with
        every plot there is.
        """
        self._command(b"destroy all")
        self.drop_commands()
        self._stdout.clear()

    def step_with(
        self,
        on_step: Callable[..., int],
        on_source: Callable[[bytes, float], float],
        compiled: tuple[int, int] | None = None,
    ) -> None:
        """Have ngspice call back at every step of a transient, and for its external sources.

        For good: a session that steps runs nothing else. ``on_step(time, delta, old, redo,
        ident, place, user)``, ``delta[0]`` to be set; ``on_source(name, time)`` is a level.
        ``compiled``, if any, is the address of C code that does so instead, and of its data.
        """

        def level(value: Any, time: float, name: Any, _ident: int, _user: Any) -> int:
            value[0] = on_source(ffi.string(name), time)
            return 0

        kind = "int (*)(double *, double, char *, int, void *)"
        step = ffi.callback("int (double, double *, double, int, int, int, void *)", on_step)
        source, data = ffi.callback(kind, level), self._self_c
        if compiled is not None:
            source, data = ffi.cast(kind, compiled[0]), ffi.cast("void *", compiled[1])
        self._kept_callbacks = (step, source, ffi.new("int *", 0))
        self._ngspice_shared.ngSpice_Init_Sync(source, source, step, self._kept_callbacks[2], data)

    def set_breakpoint(self, time: float) -> None:
        """Have the running transient place a point there, and begin anew behind it."""
        self._ngspice_shared.ngSpice_SetBkpt(time)

    def set_aside(self) -> bytes:
        """Make a plot for ``live`` beside the running transient's, whose name is returned.

        With each quantity that is read ngspice forgets where the current plot's vectors are,
        and finds all of them again for the next one. The plot must not be empty: what ngspice
        reports of a point are the current plot's vectors, of which it looks at the first.
        """
        name: bytes = ffi.string(self._ngspice_shared.ngSpice_CurPlot())
        self.execute(b"setplot new")
        self.execute(b"let kept = 0")
        return name

    def live_readers(self, names: Sequence[bytes]) -> list[LiveReader]:
        """What ``live`` needs for devices' quantities, ``@device[parameter]``.

        Raises EngineError for one that there is not.
        """
        for name in names:
            info = self._ngspice_shared.ngGet_Vec_Info(name)
            if info == ffi.NULL or info.v_length == 0 or info.v_realdata == ffi.NULL:
                raise EngineError(f"ngspice does not tell {name.decode()!r}")
            self.execute(b"unlet " + name)
        parts = [names[k : k + _AT_ONCE] for k in range(0, len(names), _AT_ONCE)]
        return [LiveReader(tuple(part), b"unlet " + b" ".join(part)) for part in parts]

    def live(self, readers: Sequence[LiveReader]) -> list[float]:
        """Devices' quantities as they are now, in the middle of a step."""
        find = self._ngspice_shared.ngGet_Vec_Info
        values: list[float] = []
        for names, forget in readers:
            values += [find(name).v_realdata[0] for name in names]
            # They stay in the plot as vectors, and would be found there again.
            self._command(forget)
        self._forgotten += len(readers)
        if self._forgotten > _COMMANDS_KEPT:
            self._forgotten = 0
            self.drop_commands()
        return values

    def drop_commands(self) -> None:
        """Drop the structures in which ngspice keeps every command it ran."""
        self._command(ffi.NULL)

    def load_compiled(self, path: str, sha256: str) -> None:
        """Load compiled Verilog-A, before a circuit that uses it. It stays for good.

        What is loaded is a copy of the very bytes that were checked, under a name without
        blanks and capitals. Raises EngineError where it has changed or does not load.
        """
        if sha256 in self._compiled:
            return
        from spicenn.technology.osdi import CompiledModel, verified_bytes

        if not self.has_osdi:
            raise EngineError(
                f"this libngspice cannot load compiled models such as {path}", remedy=OSDI_REMEDY
            )
        try:
            data = verified_bytes(CompiledModel(path, sha256, trust_model=True))
        except SpicennError as error:
            raise EngineError(f"{path}: {error.what}", remedy=error.remedy) from error
        with tempfile.TemporaryDirectory(prefix="spicenn-") as folder:
            copy = Path(folder) / "model.osdi"
            copy.write_bytes(data)
            if not _WORD.match(str(copy)):
                raise EngineError(
                    f"ngspice cannot be told of the path {str(copy)!r}",
                    remedy="set TMPDIR to a folder of letters, digits and ._+- only",
                )
            self.messages.clear()
            self.execute(b"osdi " + os.fsencode(copy))
        said = self.text().replace(str(copy), Path(path).name)
        if self.dead or re.search(r"error|couldn't", said, re.IGNORECASE):
            raise EngineError(
                f"ngspice does not load {path}: {' '.join(said.split())[:400]}",
                remedy="it must be compiled for this machine, as OSDI 0.3 or 0.4",
            )
        self._compiled.add(sha256)

    def load(self, lines: list[str]) -> bool:
        """Load a netlist as the current circuit; True if ngspice did not say that it failed."""
        kept = [ffi.new("char[]", line.encode("ascii")) for line in lines]
        array = ffi.new("char *[]", [*kept, ffi.NULL])
        return int(self._ngspice_shared.ngSpice_Circ(array)) == 0 and not self.dead

    def vector(self, name: bytes, *, copy: bool = True) -> NDArray[Any] | None:
        """A vector of the current plot (float64 or complex128), None without one.

        Not copied it is gone with the next point.
        """
        info = self._ngspice_shared.ngGet_Vec_Info(name)
        if info == ffi.NULL or info.v_length == 0:
            return None
        if info.v_realdata != ffi.NULL:
            found = np.frombuffer(ffi.buffer(info.v_realdata, 8 * info.v_length), "<f8")
            return found.copy() if copy else found
        if info.v_compdata != ffi.NULL:
            return np.frombuffer(ffi.buffer(info.v_compdata, 16 * info.v_length), "<c16").copy()
        return None

    def text(self) -> str:
        """Messages since they were last cleared."""
        lines = [line.split(b" ", 1)[-1].decode("utf-8", "replace") for line in self.messages]
        return "\n".join(lines)
