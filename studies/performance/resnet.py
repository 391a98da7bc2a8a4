"""A whole ResNet-18 with exact IR drop: what one chip costs, and how fast it then runs."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import spicenn as sn
from spicenn.kirchhoff import effective_matrix

SEED = 2024


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(width: int = 64, stages: int = 4, classes: int = 10) -> nn.Module:
    """ResNet-18 as used on 32 x 32 images: a 3 x 3 stem, four stages of two blocks.

    It has 11.2 million weights; the smoke run makes it narrower and shorter.
    """
    layers = [nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(stages):
        outputs = width << stage
        for block in range(2):
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def digits() -> tuple[Tensor, Tensor]:
    """The 1,797 digits of scikit-learn, 8 x 8 pixels raised to 32 x 32, in a fixed disorder."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images.reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    x = nn.functional.interpolate(x, size=32, mode="bilinear")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
    return x[order], torch.tensor(labels)[order]


def trained(model: nn.Module, steps: int, x: Tensor, y: Tensor) -> nn.Module:
    """A few steps of Adam: enough to tell digits apart, and to settle every BatchNorm."""
    if not steps:
        return model.eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        rows = torch.arange(step * 32, step * 32 + 32) % len(x)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval()


def resnet(
    width: int, stages: int, steps: int, batches: tuple[int, ...], repeats: int, held_out: int
) -> dict[str, Any]:
    """Compile, make one chip, compute all of its effective matrices, run it beside torch."""
    x, y = digits()
    torch.manual_seed(SEED)
    model = trained(resnet18(width, stages), steps, x[held_out:], y[held_out:])
    technology = sn.Technology.preset("rram-1r")
    result: dict[str, Any] = {
        "weights [million]": sum(p.numel() for p in model.parameters() if p.ndim > 1) / 1e6,
        "wire segment [Ω]": technology.r_wordline,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }
    gc.collect()
    with Watch() as watch:
        design = watch.phase(
            "compile",
            lambda: sn.compile(
                model,
                x[:2],
                technology=technology,
                tile=sn.Tile(128, 128),
                calibration=x[-held_out // 8 :],
            ),
        )
        tiles = watch.phase("place tiles", lambda: design.tiles)
        chip = design.sample(chip=0, seed=SEED)
        watch.phase("draw cells alone", lambda: [None for _ in chip.conductances()])
        small = np.full((2, 2), technology.g_max)
        watch.phase(
            "first solve, may compile",
            lambda: effective_matrix(small, r_wordline=2.0, r_bitline=2.0),
        )
        module = watch.phase("all effective matrices", chip.to_torch)
    result |= {
        "tiles": len(tiles),
        "cells [million]": sum(tile.g_target.size for tile in tiles) / 1e6,
        **watch.figures,
    }
    for batch in batches:
        result |= side_by_side(model, module, x[:batch], repeats)
    return result | cost_of_wires(model, design, module, x[:held_out], y[:held_out])


def side_by_side(model: nn.Module, module: nn.Module, x: Tensor, repeats: int) -> dict[str, Any]:
    """Least seconds of both on the same batch, taking turns, and their ratio."""
    seconds: dict[nn.Module, list[float]] = {model: [], module: []}
    with torch.inference_mode():
        for network in seconds:
            network(x)
        for _ in range(repeats):
            for network, taken in seconds.items():
                begin = perf_counter()
                network(x)
                taken.append(perf_counter() - begin)
    plain, exact = (min(taken) for taken in seconds.values())
    return {
        f"batch {len(x)}: plain torch [s]": plain,
        f"batch {len(x)}: chip with wires [s]": exact,
        f"batch {len(x)}: speed over plain torch": plain / exact,
    }


def cost_of_wires(
    model: nn.Module, design: sn.Design, module: nn.Module, x: Tensor, y: Tensor
) -> dict[str, Any]:
    """What the wires change: the same cells with and without them, and the ideal network."""
    ideal = design.with_technology(r_wordline=0.0, r_bitline=0.0)
    straight = ideal.sample(chip=0, seed=SEED).to_torch()
    with torch.inference_mode():
        outputs = {
            "ideal network": model(x),
            "chip, ideal wires": straight(x),
            "chip, wires on": module(x),
        }
    reference = outputs["chip, ideal wires"]
    drop = (outputs["chip, wires on"] - reference).norm() / reference.norm()
    accuracy = {
        f"accuracy on {len(x)} held-out digits, {name}": float((z.argmax(1) == y).double().mean())
        for name, z in outputs.items()
    }
    return {"output changed by the wires, relative": float(drop), **accuracy}


class Watch:
    """Seconds and peak resident memory of phases, sampled in a thread of its own."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def phase(self, name: str, work: Callable[[], Any]) -> Any:
        """Run one phase and keep its figures."""
        self._peak = resident()
        begin = perf_counter()
        value = work()
        self.figures[f"{name} [s]"] = perf_counter() - begin
        self.figures[f"{name}, peak memory [MiB]"] = max(self._peak, resident())
        return value

    def _sample(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, resident())


def resident() -> float:
    """Memory of this process [MiB]; psutil where there is no /proc."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    import psutil

    return float(psutil.Process().memory_info().rss / 2**20)
