"""Exact currents of crossbars with wires: spicenn beside every other way to them.

One thread each unless it says otherwise; conductances uniform in 1 to 100 µS, 2 Ω
segments. All ways solve the same arrays, and answers are compared before times are.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

import spicenn as sn
from spicenn.circuit import Crossbar, read_raw, render_crossbar

WIRE = 2.0
# What SciPy offers for a symmetric pattern; each study takes the best on its arrays.
ORDERINGS = ("MMD_AT_PLUS_A", "COLAMD", "MMD_ATA")

Array = np.ndarray
# Given one array (wordline, bitline) and its inputs (sample, wordline), what is left to
# do once all is prepared: currents (sample, bitline).
Way = Callable[[Array, Array], Callable[[], Array]]


def arrays(size: int, chips: int = 1, samples: int = 1) -> tuple[Array, Array]:
    """Conductances (chip, wordline, bitline) and voltages (sample, wordline)."""
    rng = np.random.default_rng(2024)
    return rng.uniform(1e-6, 1e-4, (chips, size, size)), rng.uniform(0, 0.2, (samples, size))


def spicenn(g: Array, v: Array, threads: int = 1) -> Callable[[], Array]:
    """Return ``crossbar_currents`` of these arrays, to be called."""
    return lambda: np.asarray(
        sn.crossbar_currents(g, v, r_wordline=WIRE, r_bitline=WIRE, threads=threads)
    )


def node_matrix(g: Array) -> sp.csc_array:
    """Node equations of one array, wordline nodes first."""
    m, n = g.shape

    def ladder(length: int) -> sp.csr_array:
        main = np.r_[np.full(length - 1, 2.0), 1.0]
        off = np.full(length - 1, -1.0)
        return sp.diags_array([off, main, off], offsets=[-1, 0, 1]).tocsr() / WIRE

    cells = sp.diags_array(g.ravel())
    words = sp.kron(sp.eye_array(m), ladder(n)) + cells
    bits = sp.kron(ladder(m)[::-1, ::-1], sp.eye_array(n)) + cells
    return sp.block_array([[words, -cells], [-cells, bits]]).tocsc()


def factorised(matrix: sp.csc_array, ordering: str) -> Any:
    """SciPy's sparse LU, told that the matrix is symmetric where the ordering is for it."""
    symmetric = {"SymmetricMode": True} if ordering == "MMD_AT_PLUS_A" else {}
    return splu(matrix, permc_spec=ordering, options=symmetric)


def lu_solved(factor: Any, v: Array, size: int) -> Array:
    """Currents (sample, bitline) from a factorisation."""
    rhs = np.zeros((2 * size * size, len(v)))
    rhs[: size * size : size] = v.T / WIRE
    return np.asarray(factor.solve(rhs)[-size:].T / WIRE)


def best_ordering(matrix: sp.csc_array) -> str:
    """The ordering that factorises fastest."""
    return min(ORDERINGS, key=lambda ordering: best(lambda: factorised(matrix, ordering), 2)[0])


def sparse_lu(g: Array, v: Array) -> Callable[[], Array]:
    """Return factorisation and solution; the equations and the ordering are there before."""
    matrix = node_matrix(g)
    ordering = best_ordering(matrix) if len(g) <= 128 else ORDERINGS[0]
    return lambda: lu_solved(factorised(matrix, ordering), v, len(g))


def badcrossbar(g: Array, v: Array) -> Callable[[], Array]:
    """Return badcrossbar 1.1.0, asked for the currents alone."""
    import badcrossbar as peer  # type: ignore[import-not-found]

    r, volts = 1 / g, v.T.copy()

    def run() -> Array:
        solution = peer.compute(volts, r, WIRE, node_voltages=False, all_currents=False)
        return np.asarray(solution.currents.output)

    return run


def ngspice(g: Array, v: Array) -> Callable[[], Array]:
    """Return plain ``ngspice -b`` with KLU; the netlist is written before. One sample."""
    folder = tempfile.TemporaryDirectory()
    netlist, raw = Path(folder.name) / "array.cir", Path(folder.name) / "array.raw"
    netlist.write_text(render_crossbar(Crossbar("t", g.shape[0], g.shape[1], WIRE, WIRE), g, v[:1]))

    def run() -> Array:
        command = ["ngspice", "-b", "-r", str(raw), str(netlist)]
        subprocess.run(command, check=True, capture_output=True, cwd=folder.name)
        values = read_raw(raw)
        return np.array([[np.real(values[f"i(vs_{j})"]).item() for j in range(g.shape[1])]])

    return run


def ngspice_start() -> float:
    """Seconds that ngspice takes for nearly nothing, to be taken off its times."""
    with tempfile.TemporaryDirectory() as name:
        netlist = Path(name) / "empty.cir"
        netlist.write_text("* one resistor\nv1 a 0 1\nr1 a 0 1\n.op\n.print op v(a)\n.end\n")
        command = ["ngspice", "-b", str(netlist)]
        return best(lambda: subprocess.run(command, check=True, capture_output=True), 5)[0]


def best(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least seconds of several calls, and what the last one returned."""
    seconds, value = np.inf, None
    for _ in range(repeats):
        begin = perf_counter()
        value = work()
        seconds = min(seconds, perf_counter() - begin)
    return float(seconds), value


def difference(currents: Array, expected: Array) -> float:
    """Largest relative difference of a bitline's current; refuses answers that are not alike."""
    worst = float(np.abs(currents / expected - 1).max())
    if not worst < 1e-5:
        raise SystemExit(f"the answers differ by {worst:.1e}: no time is comparable")
    return worst


def ways() -> dict[str, Way]:
    """Every other way to the same currents that is installed here."""
    found: dict[str, Way] = {"SciPy LU": sparse_lu}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses its plotting library
            import badcrossbar as _  # noqa: F401

        logging.disable(logging.INFO)
        found["badcrossbar"] = badcrossbar
    except ImportError:
        print("badcrossbar is not installed: see this study's README")
    return {**found, "ngspice + KLU": ngspice}


def exact(size: int, samples: int, small: int, count: int, large: int) -> dict[str, Any]:
    """One input, many inputs, many small arrays, one large array."""
    spicenn(*first(arrays(4)))()  # what is compiled is compiled
    g, v = first(arrays(size))
    seconds, currents = best(spicenn(g, v), 20)
    figures: dict[str, Any] = {f"{size} x {size}, one input [s]": seconds}
    for name, way in ways().items():
        slow, answer = best(way(g, v), 3)
        slow -= ngspice_start() if way is ngspice else 0.0
        figures |= {f"{name} [s]": slow, f"  over spicenn: {name}": slow / seconds}
        figures[f"  largest relative difference: {name}"] = difference(currents, answer)
    figures |= many_inputs(size, samples)
    figures |= small_arrays(small, count)
    figures |= large_array(large)
    return figures


def first(batch: tuple[Array, Array]) -> tuple[Array, Array]:
    """The first array, and all inputs."""
    return batch[0][0], batch[1]


def many_inputs(size: int, samples: int) -> dict[str, Any]:
    """Two threads, against one factorisation for all inputs."""
    g, v = first(arrays(size, samples=samples))
    seconds, currents = best(spicenn(g, v, threads=2), 5)
    lu, expected = best(sparse_lu(g, v), 3)
    difference(currents, expected)
    return {
        f"{samples} inputs, two threads [s]": seconds,
        "  over spicenn: LU factorised once": lu / seconds,
    }


def small_arrays(size: int, count: int) -> dict[str, Any]:
    """Monte Carlo of small arrays, one input each."""
    g, v = arrays(size, chips=count)
    seconds, currents = best(spicenn(g, v), 5)
    some = [sparse_lu(one, v) for one in g[: min(count, 50)]]
    lu, expected = best(lambda: np.stack([solve() for solve in some]), 5)
    difference(currents[: len(some)], expected)
    each, lu_each = seconds / count, lu / len(some)
    return {
        f"{size} x {size}, per array [µs]": 1e6 * each,
        "  LU per array [µs]": 1e6 * lu_each,
        "  over spicenn: LU per array": lu_each / each,
    }


def large_array(size: int) -> dict[str, Any]:
    """Iterations, seconds and memory of one large array."""
    g, v = first(arrays(size))
    seconds, _ = best(spicenn(g, v), 3)
    solution = sn.crossbar_currents(g, v, r_wordline=WIRE, r_bitline=WIRE, threads=1, details=True)
    figures: dict[str, Any] = {
        f"{size} x {size}, one input [s]": seconds,
        "  iterations": int(solution.iterations.item()),
        "  residual": float(solution.residual.item()),
    }
    if Path("/proc/self/status").exists():
        peak = subprocess.run(
            [sys.executable, __file__, str(size)], check=True, capture_output=True, text=True
        )
        figures["  peak memory, in arrays of its size"] = float(peak.stdout)
    return figures


def peak_arrays(size: int) -> float:
    """How many arrays of the tile's size this process holds at most, its cells among them."""
    spicenn(*first(arrays(4)))()

    def held() -> int:
        # Not getrusage: a process inherits its parent's peak there.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])

    before = held()
    spicenn(*first(arrays(size)))()
    return (held() - before) / (8 * size * size)


def scaling(limits: dict[str, int], picture: str) -> dict[str, Any]:
    """Time against size for every way, with its slope; written as a picture.

    limits : largest size of each way, and of the "others".
    """
    spicenn(*first(arrays(4)))()
    times: dict[str, dict[int, float]] = {}
    work: dict[int, float] = {}
    for name, way in {"spicenn": spicenn, **ways()}.items():
        times[name] = {}
        for size in (2**k for k in range(4, 12)):
            if size > limits.get(name, limits["others"]):
                break
            g, v = first(arrays(size))
            seconds, answer = best(way(g, v), 3 if size >= 512 or way is not spicenn else 10)
            seconds -= ngspice_start() if way is ngspice else 0.0
            times[name][size] = seconds
            solution = sn.crossbar_currents(
                g, v, r_wordline=WIRE, r_bitline=WIRE, threads=1, details=True
            )
            difference(solution.current, answer)
            if way is spicenn:
                work[size] = seconds / (size**2 * max(1, int(solution.iterations.item())))
    figures: dict[str, Any] = {}
    for name, by_size in times.items():
        top = max(by_size)
        figures[f"{name}, {top} x {top} [s]"] = by_size[top]
        figures["  slope from 64 lines on: " + name] = slope(by_size)
    for size, seconds in work.items():
        figures[f"spicenn, {size} lines, per cell and iteration [ns]"] = 1e9 * seconds
    if picture:
        draw(times, Path(picture))
        figures["picture"] = picture
    return figures


def slope(by_size: dict[int, float]) -> float:
    """Exponent of the size in a fit through the times from 64 lines on."""
    sizes = [size for size in by_size if size >= 64]
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log([by_size[s] for s in sizes]), 1)[0])


def draw(times: dict[str, dict[int, float]], path: Path) -> None:
    """Write the picture of the README."""
    from matplotlib.figure import Figure

    from spicenn.report.style import INK, MUTED, PLUS

    figure = Figure(figsize=(7.6, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for name, by_size in times.items():
        sizes, seconds = list(by_size), list(by_size.values())
        mine = name == "spicenn"
        colour = PLUS if mine else MUTED
        axes.loglog(sizes, seconds, "o-", color=colour, markersize=4, linewidth=2.2 if mine else 1)
        axes.annotate(
            f"{name}, size^{slope(by_size):.1f}", (sizes[-1], seconds[-1]), (7, 0),
            textcoords="offset points", va="center", color=INK if mine else MUTED,
            weight="bold" if mine else "normal", fontsize=9,
        )  # fmt: skip
    lines = sorted({size for by_size in times.values() for size in by_size})
    axes.set_xticks(lines, [str(size) for size in lines])
    axes.minorticks_off()
    axes.set(
        xlim=(lines[0] * 0.8, lines[-1] * 8), xlabel="wordlines = bitlines", ylabel="seconds",
        title="One input through one array with wires, one thread",
    )  # fmt: skip
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    print(peak_arrays(int(sys.argv[1])))
