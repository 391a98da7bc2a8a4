"""One code for NumPy arrays and torch tensors, without loading torch."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def is_tensor(x: Any) -> bool:
    """True for a torch tensor; never loads torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(*values: Any) -> Any:
    """Return torch if one of the values is a tensor, NumPy otherwise."""
    return sys.modules["torch"] if any(map(is_tensor, values)) else np


def as_like(x: Any, *others: Any) -> Any:
    """Return x as an array, or a tensor of the type and device of a tensor among all of them."""
    tensor = next((value for value in (x, *others) if is_tensor(value)), None)
    if tensor is None:
        return np.asarray(x, dtype=np.float64)
    if is_tensor(x):
        return x
    return sys.modules["torch"].as_tensor(x, dtype=tensor.dtype, device=tensor.device)
