"""The demo's job: real images of digits, a small network, seconds of training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spicenn.compiler.threads import one_thread

_EPOCHS = 30


@dataclass(frozen=True, eq=False)
class Digits:
    """The 8×8 handwritten digits that ship with scikit-learn (1,797 of NIST's).

    Inputs (sample, 64) float32 in [0, 1], labels (sample,); 1,297 to train with, 500
    to test with.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


class DigitClassifier(nn.Module):
    """64 pixels, 16 hidden units, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 16)
        self.fc2 = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return class scores, (sample, 10)."""
        scores: torch.Tensor = self.fc2(torch.relu(self.fc1(x)))
        return scores


def load() -> Digits:
    """Return the images of ``load_digits`` as vectors, in its order."""
    from spicenn.datasets import load_digits

    images = load_digits()
    rows = [x.reshape(len(x), -1) for x in (images.train, images.test)]
    return Digits(rows[0], images.train_labels, rows[1], images.test_labels)


def train(digits: Digits, seed: int) -> DigitClassifier:
    """Train the network; the same seed gives the same weights on the same machine."""
    x, y = torch.as_tensor(digits.x_train), torch.as_tensor(digits.y_train)
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DigitClassifier()
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-4)
        for _ in range(_EPOCHS):
            for batch in torch.split(torch.randperm(len(x)), 64):
                optimiser.zero_grad()
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    return model.eval()


def accuracy(model: DigitClassifier, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """Share of samples that the network classifies rightly."""
    with torch.no_grad():
        scores = model(torch.as_tensor(x))
    return float((scores.argmax(dim=1).numpy() == y).mean())
