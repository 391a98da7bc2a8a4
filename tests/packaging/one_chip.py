"""One manufactured chip in ngspice against the exact solver; ``test_wheel.py`` runs it."""

from __future__ import annotations

import numpy as np
import torch

import spicenn as sn


def main() -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(6, 3)
    x = torch.rand(4, 6)
    technology = sn.Technology.preset("rram-1r")
    design = sn.compile(model, x, technology=technology, calibration=x)
    chip = design.sample(chip=7, seed=2024)
    ngspice = chip.run(x.numpy(), engine="ngspice")
    nodal = chip.run(x.numpy(), engine="nodal")
    assert ngspice.shape == (4, 3), ngspice.shape
    assert np.allclose(ngspice, nodal, rtol=0, atol=1e-6), np.abs(ngspice - nodal).max()
    print("ok")


if __name__ == "__main__":
    main()
