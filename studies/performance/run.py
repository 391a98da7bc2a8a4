"""How fast Monte Carlo is, what one array costs, and what 2,000 runs cost in memory.

Every figure is a ratio of two ways to the same numbers, timed in one run on the same
arrays; the answers are compared before the times are printed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import spicenn as sn
from spicenn.circuit import Crossbar, read_raw, render_crossbar
from spicenn.engines import open_engine

SEED = 2024


def tile_design(size: int) -> sn.Design:
    """A linear map that fills one tile of size x size cells with wires."""
    import torch

    torch.manual_seed(0)
    model = torch.nn.Linear(size, size // 2, bias=False)
    return sn.compile(
        model,
        torch.rand(1, size),
        technology=sn.Technology.preset("rram-1r").replace(read_noise=0.0, bandwidth=0.0),
        tile=sn.Tile(size, size),
    )


def arrays(size: int, chips: int) -> tuple[Crossbar, np.ndarray, np.ndarray]:
    """The cells (chip, wordline, bitline) and the one input (wordline,) of such a study."""
    design = tile_design(size)
    (tile,) = design.tiles
    g = np.stack(
        [chip.conductances()[tile.name] for chip in design.sample(chips=range(chips), seed=SEED)]
    )
    x = design.example[0][0]
    return tile.crossbar, g, design.technology.v_read * x / tile.layer.input_scale


def plain_ngspice(
    crossbar: Crossbar, g: np.ndarray, v: np.ndarray, folder: Path, processes: int
) -> np.ndarray:
    """Write a netlist per chip, run the program on it, read its raw file; (chip, bitline) [A]."""

    def one(chip: int) -> np.ndarray:
        netlist, raw = folder / f"{chip}.cir", folder / f"{chip}.raw"
        netlist.write_text(render_crossbar(crossbar, g[chip], v[None]))
        subprocess.run(
            ["ngspice", "-b", "-r", str(raw), str(netlist)], check=True, capture_output=True
        )
        values = read_raw(raw)
        return np.array([np.real(values[f"i(vs_{j})"]).item() for j in range(crossbar.bitlines)])

    with ThreadPoolExecutor(processes) as pool:
        return np.stack(list(pool.map(one, range(len(g)))))


def spicelib_runner(
    crossbar: Crossbar, g: np.ndarray, v: np.ndarray, folder: Path, processes: int
) -> np.ndarray:
    """The same by spicelib's ``SimRunner``, with its own runner and raw reader."""
    from spicelib import RawRead, SimRunner  # type: ignore[import-not-found]
    from spicelib.simulators.ngspice_simulator import (  # type: ignore[import-not-found]
        NGspiceSimulator,
    )

    runner = SimRunner(
        simulator=NGspiceSimulator, parallel_sims=processes, output_folder=str(folder)
    )
    tasks = []
    for chip in range(len(g)):
        netlist = folder / f"chip{chip}.net"
        netlist.write_text(render_crossbar(crossbar, g[chip], v[None]))
        tasks.append(runner.run(netlist, run_filename=f"run{chip}.net"))
    runner.wait_completion()
    currents = []
    for task in tasks:
        raw = RawRead(str(task.raw_file), verbose=False)
        currents.append(
            [np.real(raw.get_trace(f"i(vs_{j})").get_wave()[0]) for j in range(crossbar.bitlines)]
        )
    return np.array(currents)


def throughput(chips: int, reference: int) -> dict[str, Any]:
    """Monte Carlo of 16 x 16 cells, one input, two workers, against plain processes."""
    crossbar, g, v = arrays(16, reference)
    design = tile_design(16)
    result: dict[str, Any] = {"chips": chips, "reference chips": reference}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def study(count: int) -> Any:
            return sn.monte_carlo(
                design,
                design.example[0][:1],
                chips=count,
                seed=SEED,
                workers=2,
                keep=("bitline_current",),
                store=folder / f"{count}.zarr",
                progress=False,
            )

        few = max(chips // 10, 2)
        start, _ = timed(lambda: study(few))
        whole, _ = timed(lambda: study(chips))
        # Start-up and cell by cell, from two studies of different length.
        steady = (whole - start) / (chips - few)
        result["spicenn chips/s, start-up included"] = chips / whole
        result["spicenn chips/s, steady"] = 1 / steady
        plain, currents = timed(lambda: plain_ngspice(crossbar, g, v, folder, 2))
        result["plain ngspice -b chips/s, two processes"] = reference / plain
        tile = sn.tile_record(folder / f"{chips}.zarr", design.tiles[0].name)
        recorded = tile["bitline_current"].values[:reference].reshape(reference, -1)
        agree(recorded, currents)
        for label, seconds in (("start-up included", whole / chips), ("steady", steady)):
            result[f"ratio to plain ngspice, {label}"] = plain / reference / seconds
        if importlib.util.find_spec("spicelib") is None:
            result["spicelib"] = (
                "not installed: pip install -r studies/performance/requirements.txt"
            )
        else:
            peer, currents = timed(lambda: spicelib_runner(crossbar, g, v, folder, 2))
            agree(recorded, currents)
            result["spicelib SimRunner(2) chips/s"] = reference / peer
            for label, seconds in (("start-up included", whole / chips), ("steady", steady)):
                result[f"ratio to spicelib, {label}"] = peer / reference / seconds
    return result


def pyspice_script(g: np.ndarray, v: np.ndarray, wire: float) -> Any:
    """Build the array as a user of PySpice would, an object per element."""
    from PySpice.Spice.Netlist import Circuit

    circuit = Circuit("crossbar")
    rows, columns = g.shape
    for i in range(rows):
        circuit.V(f"in{i}", f"in_{i}", circuit.gnd, float(v[i]))
        for j in range(columns):
            left = f"in_{i}" if j == 0 else f"w_{i}_{j - 1}"
            below = f"s_{j}" if i == rows - 1 else f"b_{i + 1}_{j}"
            circuit.R(f"w_{i}_{j}", left, f"w_{i}_{j}", wire)
            circuit.R(f"b_{i}_{j}", f"b_{i}_{j}", below, wire)
            circuit.R(f"c_{i}_{j}", f"w_{i}_{j}", f"b_{i}_{j}", float(1 / g[i, j]))
    for j in range(columns):
        circuit.V(f"s_{j}", f"s_{j}", circuit.gnd, 0)
    return circuit


def one_array(size: int, repeats: int) -> dict[str, Any]:
    """One array, one input: PySpice with its defaults against the engine, reading included."""
    crossbar, g, v = arrays(size, repeats)
    code = "import sys, json; sys.path.insert(0, sys.argv[1]); import run; run.pyspice_child()"
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "array.npz", g=g[0], v=v, wire=crossbar.r_wordline)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, str(Path(__file__).parent), name],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "NGSPICE_LIBRARY_PATH": library()},
        )
        peer = json.loads(done.stdout.splitlines()[-1])
    write = [timed(partial(render_crossbar, crossbar, cells, v[None]))[0] for cells in g]
    cold = []
    for _ in range(repeats):
        with open_engine("ngspice") as engine:
            _ = engine.versions  # its process is up, as PySpice's library is loaded
            seconds, solution = timed(partial(engine.solve, crossbar, g[:1], v[None, None]))
        cold.append(seconds)
    agree(solution.current[0], np.array(peer["current"])[None])
    with open_engine("ngspice") as engine:
        engine.solve(crossbar, g[:1], v[None, None])
        warm = timed(lambda: engine.solve(crossbar, g, v[None, None]))[0] / repeats
    return {
        "size": size,
        "PySpice script, build + read + run [s]": peer["total"],
        "PySpice elements to netlist [s]": peer["write"],
        "spicenn netlist [s]": float(np.median(write)),
        "spicenn first array, read + run [s]": float(np.median(cold)),
        "spicenn next arrays [s]": warm,
        "ratio, first array": peer["total"] / float(np.median(cold)),
        "ratio, next arrays": peer["total"] / warm,
        "ratio, writing the netlist": peer["write"] / float(np.median(write)),
    }


def pyspice_child() -> None:
    """Run PySpice in a process of its own: it loads libngspice into it."""
    import logging

    logging.disable(logging.CRITICAL)
    data = np.load(Path(sys.argv[2]) / "array.npz")
    g, v, wire = data["g"], data["v"], float(data["wire"])
    begin = perf_counter()
    circuit = pyspice_script(g, v, wire)
    text = str(circuit)
    write = perf_counter() - begin
    analysis = circuit.simulator().operating_point()
    current = [float(np.ravel(analysis.branches[f"vs_{j}"])[0]) for j in range(g.shape[1])]
    total = perf_counter() - begin
    assert text
    print(json.dumps({"write": write, "total": total, "current": current}))


def library() -> str:
    """Path of the libngspice that spicenn itself loads."""
    from spicenn.engines.ngspice.facts import ngspice_facts

    return str(ngspice_facts().library)


def memory(runs: int) -> dict[str, Any]:
    """Growth of client, worker and simulator over many runs, every tenth batch failing."""
    import psutil
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        first = client.submit(batches, max(runs // 10, 10), pure=False).result()
        client_before = psutil.Process().memory_info().rss
        before = client.submit(footprint, pure=False).result()
        last = client.submit(batches, runs, pure=False).result()
        after = client.submit(footprint, pure=False).result()
        client_growth = psutil.Process().memory_info().rss - client_before
        client.submit(close_engine, pure=False).result()
    growth = {key: (after[key] - before[key]) / 2**20 for key in after}
    return {
        "runs": runs,
        "failed": last["failed"],
        "warm-up runs": first["runs"],
        "simulators used": last["children"],
        "client growth [MiB]": client_growth / 2**20,
        "worker growth [MiB]": growth["worker"],
        "simulator growth [MiB]": growth["simulator"],
        "together [MiB]": client_growth / 2**20 + growth["worker"] + growth["simulator"],
    }


def engine() -> Any:
    """The worker's own engine, kept from task to task as a study's worker keeps it."""
    from distributed import get_worker

    worker: Any = get_worker()
    if not hasattr(worker, "engine"):
        worker.engine = open_engine("ngspice", timeout=20.0)
    return worker.engine


def close_engine() -> None:
    """End the worker's simulator."""
    engine().close()


def batches(runs: int) -> dict[str, int]:
    """Solve chips of 16 x 16 cells in batches of ten; every tenth batch cannot converge."""
    import psutil

    from spicenn.errors import Status

    crossbar, g, v = arrays(16, 10)
    bad = Crossbar("bad", 1, 1, cell=sn.Cell("jump", JUMP))
    failed = done = 0
    children = set()
    while done < runs:
        if done % 100 == 90:
            solution = engine().solve(bad, np.full((10, 1, 1), 1e-5), np.full((1, 1, 1), 0.2))
        else:
            solution = engine().solve(crossbar, g, v[None, None])
        failed += int((solution.status != Status.OK).sum())
        done += len(solution.status)
        children |= {child.pid for child in psutil.Process().children(recursive=True)}
    return {"runs": done, "failed": failed, "children": len(children)}


# A current that flips with the voltage it makes: there is no operating point to find.
JUMP = """.subckt jump w b g=1u
R1 w m {1/g}
B1 m b i = v(m,b) > 0.1 ? 1 : -1
.ends jump
"""


def footprint() -> dict[str, int]:
    """Resident memory of this worker and of its simulator."""
    import gc

    import psutil

    gc.collect()
    process = psutil.Process()
    return {
        "worker": process.memory_info().rss,
        "simulator": sum(child.memory_info().rss for child in process.children(recursive=True)),
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call took, and what it returned."""
    begin = perf_counter()
    value = work()
    return perf_counter() - begin, value


def agree(a: np.ndarray, b: np.ndarray) -> None:
    """Refuse to compare times of answers that differ."""
    error = float(np.abs(a - b).max() / np.abs(b).max())
    if not error < 1e-5:
        raise SystemExit(f"the answers differ by {error:.1e} of full scale: no time is comparable")


def elsewhere(name: str, *sizes: Any) -> dict[str, Any]:
    """Run ``module.function`` of this folder; what it needs is loaded for its part alone."""
    module, _, function = name.rpartition(".")
    figures: dict[str, Any] = getattr(importlib.import_module(module), function)(*sizes)
    return figures


LIMITS = {"spicenn": 2048, "others": 256}
PICTURE = str(Path(__file__).resolve().parents[2] / "docs" / "exact.png")

# What runs, its full sizes, and those of the smoke run.
PARTS: dict[str, tuple[Callable[..., dict[str, Any]], tuple[Any, ...], tuple[Any, ...]]] = {
    "throughput": (throughput, (4000, 300), (20, 4)),
    "one_array": (one_array, (64, 5), (8, 1)),
    "memory": (memory, (2000,), (100,)),
    "exact": (partial(elsewhere, "exact.exact"), (128, 100, 16, 2000, 1024), (16, 4, 8, 10, 32)),
    "scaling": (partial(elsewhere, "exact.scaling"), (LIMITS, PICTURE), ({"others": 32}, "")),
    "resnet": (
        partial(elsewhere, "resnet.resnet"),
        (64, 4, 80, (1, 64), 9, 256),
        (2, 1, 0, (1, 4), 1, 8),
    ),
}


def main() -> None:
    """Run the parts that were asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: shows that it runs")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {sorted(unknown)}; there are {list(PARTS)}")
    parts = options.parts or (
        ["one_array", "exact", "scaling", "resnet"] if options.smoke else list(PARTS)
    )
    figures = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of peers
        for part in parts:
            work, full, small = PARTS[part]
            figures[part] = work(*(small if options.smoke else full))
            print(f"\n{part}")
            for key, value in figures[part].items():
                print(
                    f"  {key:47} {value:.4g}" if isinstance(value, float) else f"  {key:47} {value}"
                )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
