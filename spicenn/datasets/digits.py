"""The digits that ship with scikit-learn: real images without a network or a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from spicenn.datasets.images import Images
from spicenn.errors import InputError


def load_digits(training: int = 1297) -> Images:
    """Return 1,797 handwritten digits of 8×8 pixels in a fixed shuffled order.

    Parameters
    ----------
    training : how many of them train; the rest tests.

    Returns
    -------
    Images of (sample, 1, 8, 8), in sixteenths.

    Raises InputError unless 1 <= training < 1797. Source: Alpaydin and Kaynak, Optical
    Recognition of Handwritten Digits, UCI Machine Learning Repository (1998), the test set.
    """
    from sklearn.datasets import load_digits as embedded

    data: Any = embedded()
    count = len(data.target)
    if isinstance(training, bool) or not 1 <= training < count:
        raise InputError(f"training = {training!r} is out of range", remedy=f"1 … {count - 1}")
    # Not a draw of a study but a part of the data set: this order for all, for ever.
    order = np.random.default_rng(0).permutation(count)
    x = (data.images[order, np.newaxis] / 16).astype(np.float32)
    y = data.target[order].astype(np.int64)
    names = tuple(str(name) for name in data.target_names)
    return Images(x[:training], y[:training], x[training:], y[training:], names)
