"""Small files in the formats of the original distributions."""

import hashlib
import socket
import urllib.request

import numpy as np
import pytest

from tests.datasets.test_idx import idx


@pytest.fixture
def offline(monkeypatch):
    """No socket can be opened, and what was cached elsewhere is not there."""

    def refuse(*_args, **_more):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(urllib.request, "_opener", None)


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def mnist():
    """The four files' contents by name, and the arrays in them."""
    rng = np.random.default_rng(1)
    arrays = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": np.arange(12, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": np.array([7, 2, 1, 0, 4], np.uint8),
    }
    return {name: idx(array) for name, array in arrays.items()}, arrays
