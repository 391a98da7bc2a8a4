"""The process that ngspice lives in: ``python -m spicenn.engines.ngspice.child PARENT``.

It reads requests from its standard input and answers on what was its standard
output; libngspice prints into its standard error instead. It ends when that input
closes or when its parent is gone, even in the middle of an analysis: both are
watched by threads, which run while libngspice computes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.diagnosis import failure_of
from spicenn.engines.ngspice.protocol import Array, Header, ProtocolError, pack, unpack
from spicenn.errors import EngineError, NgspiceNotFound, SpicennError

if TYPE_CHECKING:
    from spicenn.engines.ngspice.simulation import Simulation

_PARENT_CHECK_S = 0.5

Send = Callable[[Header, Sequence[Array]], None]


def main() -> None:
    """Serve requests until the parent closes the pipe or is gone."""
    parent = int(sys.argv[-1])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    queue: SimpleQueue[tuple[Header, list[Array]]] = SimpleQueue()
    threading.Thread(target=_listen, args=(requests, queue), daemon=True).start()
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()

    def send(header: Header, arrays: Sequence[Array] = ()) -> None:
        replies.write(pack(header, arrays))
        replies.flush()

    try:
        simulation = _open(send)
        while simulation is not None:
            header, arrays = queue.get()
            if header["request"] == "step":
                _step(simulation, header, send, queue.get)
            _serve(simulation, header, arrays, send)
    except BrokenPipeError:
        pass
    finally:
        # No orderly end: libngspice's own may hang or crash, and there is nothing to save.
        os._exit(0)


def _listen(requests: BinaryIO, queue: SimpleQueue[tuple[Header, list[Array]]]) -> None:
    def read(count: int) -> bytes:
        data = requests.read(count)
        if len(data) < count:
            raise ProtocolError("closed")
        return data

    try:
        while True:
            queue.put(unpack(read))
    except (ProtocolError, ValueError, OSError):
        os._exit(0)


def _watch(parent: int) -> None:
    # The parent-death signal of Linux would come also when the thread ends that
    # started this process, while the parent lives on.
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(0)


def _open(send: Send) -> Simulation | None:
    try:
        from spicenn.engines.ngspice.session import Session
        from spicenn.engines.ngspice.simulation import Simulation

        session = Session()
    except NgspiceNotFound as error:
        send(failure_of(error), [])
        return None
    except ImportError as error:
        missing = EngineError(f"a library is missing: {error}", remedy="pip install PySpice")
        send(failure_of(missing), [])
        return None
    facts = {
        "library": session.library_path,
        "version": session.version,
        "klu": session.has_klu,
        "xspice": bool(session.has_xspice),
        "osdi": session.has_osdi,
    }
    send({"ready": facts, "rss": memory()}, [])
    return Simulation(session)


def _step(
    simulation: Simulation,
    header: Header,
    send: Send,
    receive: Callable[[], tuple[Header, list[Array]]],
) -> NoReturn:
    """Run one co-simulation, to its end: the process serves nothing else afterwards."""
    from spicenn.engines.ngspice.stepper import Stepper

    try:
        Stepper(simulation.session, send, receive, header).run()
    except SpicennError as error:
        send({**failure_of(error), "last": True}, [])
    os._exit(0)


def _serve(simulation: Simulation, header: Header, arrays: list[Array], send: Send) -> None:
    from spicenn.engines.ngspice.simulation import LoadError

    kind = header["request"]
    try:
        if kind == "crossbar":
            _serve_crossbar(simulation, header, arrays, send)
        elif kind == "conductances":
            send({"ok": True, "rss": memory()}, [simulation.conductances(header["text"])])
        elif kind == "netlist":
            found, runtime = simulation.netlist(
                header["lines"], header["commands"], header["vectors"], header.get("osdi", ())
            )
            complexes = [bool(np.iscomplexobj(vector)) for vector in found]
            reply = {"ok": True, "runtime": runtime, "complex": complexes, "rss": memory()}
            send(reply, [_plain(vector) for vector in found])
        else:
            raise EngineError(f"unknown request {kind!r}")
    except LoadError as error:
        send({**failure_of(error.cause), "last": True}, [])
        os._exit(0)
    except SpicennError as error:
        send({**failure_of(error), "rss": memory()}, [])


def _serve_crossbar(
    simulation: Simulation, header: Header, arrays: list[Array], send: Send
) -> None:
    g, v = arrays
    text, wordlines, bitlines = header["text"], header["wordlines"], header["bitlines"]
    chips = simulation.crossbar(text, wordlines, bitlines, g, v)
    for number, (current, error, runtime) in enumerate(chips):
        reply: Header = {"ok": error is None, "chip": number, "runtime": runtime}
        if number % 16 == 0 or number == len(g) - 1:
            reply["rss"] = memory()
        if error is None:
            send(reply, [current])
        else:
            send({**failure_of(error), **reply}, [])


def _plain(vector: NDArray[Any]) -> Array:
    """Complex numbers as pairs."""
    return vector.view(np.float64) if np.iscomplexobj(vector) else vector


def memory() -> int:
    """Resident memory of this process [B]."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
