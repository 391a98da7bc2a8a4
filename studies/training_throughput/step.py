"""One contender: times its training steps, on request, in rounds. A process of its own.

Reads a line per round from stdin, answers with one of JSON: seconds of processor time and of
the clock per step. Imports only what its contender needs: peers live in another environment.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn

BITS = 8
STEPS = 2**BITS - 2  # of a converter over its whole range, as aihwkit counts them
# Converters' full scale over largest weight and input range, the noise of an output in the
# same units, and that of a weight per pass over the largest weight.
OUT_BOUND, OUT_NOISE, WEIGHT_NOISE = 12.0, 0.04, 0.05
SEGMENT = 2.0  # Ω


def network(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digital(model: nn.Module, x: torch.Tensor, weights: bool) -> nn.Module:
    return copy.deepcopy(model)


def spicenn(model: nn.Module, x: torch.Tensor, weights: bool, wires: str = "none") -> nn.Module:
    """Analog layers; without wires a layer is one tile, as the peers', with them 128 × 128."""
    from dataclasses import replace

    import spicenn as sn
    from spicenn.compiler.mapping import Mapping
    from spicenn.training.analog import analog
    from spicenn.training.awareness import Awareness

    ohms = 0.0 if wires == "none" else SEGMENT
    technology = replace(sn.Technology.preset("ideal"), r_wordline=ohms, r_bitline=ohms)
    largest = max(max(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear))
    size = 128 if ohms else 2 * largest
    design = sn.compile(
        model, x, technology=technology, tile=sn.Tile(wordlines=size, bitlines=size),
        mapping=Mapping(bias="digital", input_bits=BITS, adc_bits=BITS), calibration=x,
    )  # fmt: skip
    inputs = [m.in_features for m in model.modules() if isinstance(m, nn.Linear)]
    # Noise of a read of each weight that makes the peers' noise of an output, for inputs of
    # the rms of uniform ones.
    sigma = OUT_NOISE / math.sqrt(max(inputs) / 3)
    awareness = Awareness(
        read_noise=sigma, weight_noise=WEIGHT_NOISE if weights else None, weight_bits=None,
        wires=wires, ranges="learn",  # type: ignore[arg-type]
    )  # fmt: skip
    return analog(model, design, awareness=awareness)


def aihwkit(model: nn.Module, x: torch.Tensor, weights: bool) -> nn.Module:
    from aihwkit.nn.conversion import convert_to_analog  # type: ignore[import-not-found]
    from aihwkit.simulator.configs import TorchInferenceRPUConfig  # type: ignore[import-not-found]
    from aihwkit.simulator.parameters.enums import (  # type: ignore[import-not-found]
        BoundManagementType,
        NoiseManagementType,
        WeightModifierType,
        WeightNoiseType,
    )

    config: Any = TorchInferenceRPUConfig()
    mapping, forward, ranges = config.mapping, config.forward, config.pre_post.input_range
    mapping.max_input_size = mapping.max_output_size = 0  # a layer is one tile
    mapping.weight_scaling_omega, mapping.digital_bias = 1.0, True
    forward.inp_res = forward.out_res = 1 / STEPS
    forward.out_bound, forward.out_noise = OUT_BOUND, OUT_NOISE
    forward.w_noise, forward.w_noise_type = 0.0, WeightNoiseType.NONE
    forward.noise_management = NoiseManagementType.NONE
    forward.bound_management = BoundManagementType.NONE
    ranges.enable = ranges.learn_input_range = True
    ranges.init_from_data, ranges.init_value = 0, 1.0
    if weights:
        config.modifier.type = WeightModifierType.ADD_NORMAL
        config.modifier.std_dev, config.modifier.rel_to_actual_wmax = WEIGHT_NOISE, True
    made: nn.Module = convert_to_analog(model, config)
    return made


def lightning(model: nn.Module, x: torch.Tensor, weights: bool) -> nn.Module:
    from aihwkit_lightning.nn.conversion import convert_to_analog  # type: ignore[import-not-found]
    from aihwkit_lightning.simulator.configs import (  # type: ignore[import-not-found]
        TorchInferenceRPUConfig,
        WeightNoiseInjectionType,
    )

    config: Any = TorchInferenceRPUConfig()
    forward, ranges = config.forward, config.pre_post.input_range
    config.mapping.max_input_size = -1  # a layer is one tile
    forward.inp_res = forward.out_res = STEPS
    forward.out_bound, forward.out_noise = OUT_BOUND, OUT_NOISE
    ranges.enable = ranges.learn_input_range = True
    ranges.init_from_data, ranges.init_value = 0, 1.0
    if weights:
        config.modifier.noise_type = WeightNoiseInjectionType.ADD_NORMAL
        config.modifier.std_dev = WEIGHT_NOISE
    made: nn.Module = convert_to_analog(model, config)
    return made


CONTENDERS: dict[str, Callable[..., nn.Module]] = {
    "digital": digital, "spicenn": spicenn, "aihwkit": aihwkit, "lightning": lightning,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--sizes", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("--wires", default="none")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    x, y = torch.rand(64, given.sizes[0]), torch.randint(given.sizes[-1], (64,))
    options = {"wires": given.wires} if given.contender == "spicenn" else {}
    plain = network(given.sizes)
    net = CONTENDERS[given.contender](plain, x, given.weights, **options).train()
    optimiser, criterion = torch.optim.SGD(net.parameters(), lr=0.01), nn.CrossEntropyLoss()

    def step() -> torch.Tensor:
        optimiser.zero_grad()
        loss: torch.Tensor = criterion(net(x), y)
        loss.backward()
        optimiser.step()
        return loss.detach()

    for _ in range(max(1, given.steps // 2)):
        loss = step()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        cpu, clock = time.process_time(), time.perf_counter()
        for _ in range(given.steps):
            loss = step()
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        told = {"cpu": cpu / given.steps, "clock": clock / given.steps, "loss": float(loss)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
