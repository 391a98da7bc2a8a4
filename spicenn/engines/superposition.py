"""Linear tiles by superposition: an engine sees every wordline once, not every input.

A tile of linear cells gives the same combination of its responses to single wordlines for
any input. So an engine that is slow per input is asked for those alone, and a copy of a
tile that was seen before is not simulated again.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import numpy as np

from spicenn.circuit import Crossbar
from spicenn.engines.engine import Array, Engine, Parameters, Solution, WrappedEngine, check_shapes
from spicenn.engines.laws import is_linear
from spicenn.errors import EngineError, Status

# Conductances kept, in elements: 256 MB.
_ELEMENTS = 1 << 25

_Seen = tuple[Array, int, str]


class SuperposedEngine(WrappedEngine):
    """Another engine's answers to unit inputs, added up. The other engine stays the caller's.

    Parameters
    ----------
    engine : what solves; its answers are linear to its tolerances, and so are these.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, "superposed")
        self._seen: OrderedDict[bytes, _Seen] = OrderedDict()
        self._elements = 0

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        """See ``Engine.solve``. Raises EngineError for cells that are not known to be linear."""
        parameters = parameters or {}
        check_shapes(crossbar, g, v, parameters)
        if not is_linear(crossbar.cell):
            raise EngineError(
                f"the cell {crossbar.cell.name!r} is not known to be linear: its currents do "
                "not add",
                where=crossbar.name,
                remedy="use the engine itself",
            )
        keys = [_key(crossbar, g[chip], _of(parameters, chip)) for chip in range(len(g))]
        first = {key: chip for chip, key in enumerate(keys) if key not in self._seen}
        fresh = list(first.values())
        found: dict[bytes, _Seen] = {key: self._seen[key] for key in keys if key in self._seen}
        runtime = np.zeros(len(g))
        if fresh:
            unit = np.eye(crossbar.wordlines)[np.newaxis]
            some = {name: values[fresh] for name, values in parameters.items()}
            solution = self._engine.solve(crossbar, g[fresh], unit, some)
            runtime[fresh] = solution.runtime
            for k, key in enumerate(first):
                found[key] = (
                    solution.current[k], int(solution.status[k]), solution.message[k],
                )  # fmt: skip
                self._keep(key, found[key])
        current = np.stack(
            [v[chip if len(v) > 1 else 0] @ found[key][0] for chip, key in enumerate(keys)]
        )
        return Solution(
            current,
            np.array([found[key][1] for key in keys], np.int8),
            tuple(found[key][2] for key in keys),
            runtime,
        )

    def _keep(self, key: bytes, seen: _Seen) -> None:
        if seen[1] != Status.OK or seen[0].size > _ELEMENTS:
            return
        self._seen[key] = seen
        self._elements += seen[0].size
        while self._elements > _ELEMENTS:
            _, (oldest, _, _) = self._seen.popitem(last=False)
            self._elements -= oldest.size

    def close(self) -> None:
        """Forget what was seen; the engine under it stays open."""
        self._seen.clear()
        self._elements = 0


def superposed(engine: Engine) -> SuperposedEngine:
    """Return an engine that asks ``engine`` for single wordlines and adds; see the class."""
    return SuperposedEngine(engine)


def _of(parameters: Parameters, chip: int) -> dict[str, Array]:
    return {name: values[chip] for name, values in parameters.items()}


def _key(crossbar: Crossbar, g: Array, parameters: Parameters) -> bytes:
    digest = blake2b(repr(crossbar).encode(), digest_size=20)
    for name, values in sorted({"g": g, **parameters}.items()):
        digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return digest.digest()
