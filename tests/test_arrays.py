"""One code for arrays and tensors: which of them it is, and what it takes to compute with both."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from spicenn.arrays import as_like, is_tensor, namespace


def test_a_tensor_among_the_values_decides():
    x, t = np.ones(3), torch.ones(3, dtype=torch.float32)
    assert [is_tensor(value) for value in (x, t, 1.0, None)] == [False, True, False, False]
    assert namespace(x, 1.0) is np
    assert namespace(x, t) is torch
    assert as_like(1, x).dtype == np.float64
    assert as_like(2.0, x, t).dtype == torch.float32
    assert as_like(t, x) is t


def test_it_loads_no_torch():
    code = (
        "import sys, spicenn.arrays as a; "
        "assert a.namespace(a.as_like(1.0)).__name__ == 'numpy'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
