"""One split of the digits, the same that the demo and the studies were made with."""

import hashlib
from typing import Any

import numpy as np
import pytest

from spicenn.cli.digits import load
from spicenn.datasets import Images, load_digits
from spicenn.errors import InputError


def test_digits_are_images():
    digits = load_digits()
    assert digits.train.shape == (1297, 1, 8, 8)
    assert digits.test.shape == (500, 1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert repr(digits) == "Images(1297 to train with, 500 to test with, 1×8×8, 10 classes)"


def test_the_demo_has_the_same_images_in_the_same_order():
    digits, demo = load_digits(), load()
    np.testing.assert_array_equal(digits.train.reshape(-1, 64), demo.x_train)
    np.testing.assert_array_equal(digits.test.reshape(-1, 64), demo.x_test)
    np.testing.assert_array_equal(digits.train_labels, demo.y_train)
    np.testing.assert_array_equal(digits.test_labels, demo.y_test)


def test_the_split_never_changes():
    digits = load_digits(1200)
    assert len(digits.test) == 597
    data = (np.concatenate([digits.train, digits.test]) * 16).astype(np.uint8).tobytes()
    labels = np.concatenate([digits.train_labels, digits.test_labels]).astype(np.uint8).tobytes()
    assert hashlib.sha256(data + labels).hexdigest() == GOLDEN


GOLDEN = "428ad214e900fe9343f94d9fedc8a16d461db8cd1bc0f61eecf448b8c5f16b35"


@pytest.mark.parametrize("training", [0, 1797, True])
def test_an_impossible_split_is_refused(training):
    with pytest.raises(InputError, match="training"):
        load_digits(training)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": np.zeros((2, 1, 2, 2))}, "train: is no float32"),
        ({"train": np.full((2, 1, 2, 2), 255, np.float32)}, "outside"),
        ({"train": np.full((2, 1, 2, 2), np.nan, np.float32)}, "outside"),
        ({"train": np.zeros((3, 1, 2, 2), np.float32)}, "2 labels for 3 images"),
        ({"train": np.zeros((2, 1, 2, 3), np.float32)}, "to test with"),
        ({"train_labels": np.array([0, 2])}, "for 2 classes"),
        ({"test_labels": np.array([-1])}, "for 2 classes"),
        ({"test_labels": np.array([0], np.int32)}, "is no int64"),
    ],
)
def test_the_record_refuses_what_does_not_fit(change, message):
    good: dict[str, Any] = {
        "train": np.zeros((2, 1, 2, 2), np.float32),
        "train_labels": np.array([0, 1]),
        "test": np.ones((1, 1, 2, 2), np.float32),
        "test_labels": np.array([1]),
        "classes": ("a", "b"),
    }
    Images(**good)
    with pytest.raises(InputError, match=message):
        Images(**{**good, **change})
