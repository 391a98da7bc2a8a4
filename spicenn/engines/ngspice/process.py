"""The client's end of one child process."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import spicenn
from spicenn.engines.ngspice.diagnosis import KINDS
from spicenn.engines.ngspice.protocol import Array, Header, ProtocolError, pack, unpack
from spicenn.errors import EngineError, SimulationTimeout, SimulatorCrash, SpicennError

_START = (
    "import sys; sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]); "
    "from spicenn.engines.ngspice.child import main; main()"
)
_START_TIMEOUT_S = 60.0
_CHUNK = 1 << 18


class Child:
    """One running simulator process. Not for several threads at a time.

    Raises SimulatorCrash where it does not start, NgspiceNotFound without a library.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise EngineError("this Python cannot start another", remedy="run an ordinary one")
        root = str(Path(spicenn.__file__).parent.parent)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._popen = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", _START, root, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the client's to handle
        )
        self._end = weakref.finalize(self, _end, self._popen, self._errors, os.getpid())
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._in, self._out = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._buffer = bytearray()
        self._taken = 0
        self.memory = 0
        header, _ = self.receive(_START_TIMEOUT_S)
        if not header.get("ready"):
            self.close()
            raise failure(header)
        self.facts: Header = header["ready"]
        self.memory_at_start = self.memory

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def output(self) -> int:
        """The pipe that replies come from, for a selector."""
        return self._out

    @property
    def has_begun(self) -> bool:
        """True where a part of the next reply has been taken from the pipe already."""
        return len(self._buffer) > self._taken

    def send(self, header: Header, arrays: Sequence[Array], timeout: float) -> None:
        """Send a request. Raises SimulatorCrash, SimulationTimeout."""
        data = memoryview(pack(header, arrays))
        deadline = time.monotonic() + timeout
        while data:
            try:
                data = data[os.write(self._in, data[:_CHUNK]) :]
            except BlockingIOError:
                self._wait(self._in, selectors.EVENT_WRITE, deadline, timeout)
            except OSError as error:
                raise self._crash() from error

    def receive(self, timeout: float) -> tuple[Header, list[Array]]:
        """Return the next reply. Raises SimulationTimeout, SimulatorCrash."""
        deadline = time.monotonic() + timeout

        def read(count: int) -> bytes:
            while len(self._buffer) - self._taken < count:
                del self._buffer[: self._taken]
                self._taken = 0
                try:
                    chunk = os.read(self._out, max(_CHUNK, count - len(self._buffer)))
                except BlockingIOError:
                    self._wait(self._out, selectors.EVENT_READ, deadline, timeout)
                    continue
                if not chunk:
                    raise self._crash()
                self._buffer += chunk
            self._taken += count
            return bytes(self._buffer[self._taken - count : self._taken])

        try:
            header, arrays = unpack(read)
        except (ProtocolError, ValueError) as error:
            raise SimulatorCrash(f"ngspice's process said something else: {error}") from error
        self.memory = header.get("rss", self.memory)
        return header, arrays

    def close(self) -> None:
        """End the process. Safe to call again."""
        self._end()

    def _wait(self, pipe: int, event: int, deadline: float, timeout: float) -> None:
        with selectors.PollSelector() as selector:
            selector.register(pipe, event)
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise SimulationTimeout(
                    f"ngspice gave no answer in {timeout:g} s",
                    remedy="raise the timeout, or look at what keeps this circuit from converging",
                )

    def _crash(self) -> SimulatorCrash:
        try:
            code = self._popen.wait(5.0)
        except subprocess.TimeoutExpired:
            return SimulatorCrash("ngspice's process closed its pipe")
        how = f"with code {code}"
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 400, 0))
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return SimulatorCrash(
            f"ngspice's process was ended {how}" + (f": {said[-1]}" if said else ""),
            remedy="run the chip again; if it recurs, run its netlist with plain ngspice -b",
        )


def failure(header: Header) -> SpicennError:
    """The error that a reply carries."""
    return KINDS.get(header["kind"], EngineError)(header["what"], remedy=header.get("remedy"))


def _end(popen: subprocess.Popen[bytes], errors: BinaryIO, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the client holds a copy of this; the child is not its own
    popen.kill()
    for pipe in (popen.stdin, popen.stdout):
        if pipe is not None:
            pipe.close()
    popen.wait()
    errors.close()
