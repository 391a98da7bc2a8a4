"""MNIST from its own files and through OpenML; every way in which either fails."""

import gzip
import hashlib

import numpy as np
import pytest

from spicenn.datasets import load_mnist
from spicenn.datasets.mnist import _PUBLISHED
from spicenn.errors import InputError, SpicennError
from tests.datasets.conftest import md5


def write(folder, files, *, packed=False, dotted=False):
    folder.mkdir(exist_ok=True)
    sums = {}
    for name, data in files.items():
        content = gzip.compress(data) if packed else data
        real = name.replace("-idx", ".idx") if dotted else name + (".gz" if packed else "")
        (folder / real).write_bytes(content)
        sums[real] = md5(content)
    return sums


@pytest.mark.parametrize(("packed", "dotted"), [(False, False), (True, False), (False, True)])
def test_files_become_images(tmp_path, mnist, packed, dotted):
    files, arrays = mnist
    sums = write(tmp_path, files, packed=packed, dotted=dotted)
    steps = []
    images = load_mnist(tmp_path, checksums=sums, progress=lambda *step: steps.append(step))
    assert images.train.shape == (12, 1, 28, 28)
    want = (arrays["train-images-idx3-ubyte"] / 255).astype(np.float32)
    np.testing.assert_array_equal(images.train[:, 0], want)
    np.testing.assert_array_equal(images.test_labels, [7, 2, 1, 0, 4])
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_limit_takes_the_first_of_either_part(tmp_path, mnist):
    sums = write(tmp_path, mnist[0], packed=True)
    whole = load_mnist(tmp_path, checksums=sums)
    some = load_mnist(tmp_path, checksums=sums, limit=7)
    assert (len(some.train), len(some.test)) == (7, 5)
    np.testing.assert_array_equal(some.train, whole.train[:7])
    np.testing.assert_array_equal(some.train_labels, whole.train_labels[:7])


def test_other_files_than_the_published_are_refused_unless_told(tmp_path, mnist):
    sums = write(tmp_path, mnist[0], packed=True)
    with pytest.raises(InputError, match="expected f68b3c2dcbeaaa9fbdd348bbdeb94873") as caught:
        load_mnist(tmp_path)
    assert "train-images-idx3-ubyte.gz" in str(caught.value.where)
    assert sums["train-images-idx3-ubyte.gz"] in caught.value.what
    assert "verify=False" in str(caught.value.remedy)
    assert len(load_mnist(tmp_path, verify=False).train) == 12


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512"])
def test_a_checksum_of_any_length_finds_one_changed_bit(tmp_path, mnist, name):
    files, _ = mnist
    sums = write(tmp_path, files)
    image = "train-images-idx3-ubyte"
    sums[image] = hashlib.new(name, files[image]).hexdigest().upper()
    load_mnist(tmp_path, checksums=sums)
    changed = bytearray(files[image])
    changed[100] ^= 1
    (tmp_path / image).write_bytes(changed)
    with pytest.raises(InputError, match=f"{name} checksum is"):
        load_mnist(tmp_path, checksums=sums)


def test_checksums_that_would_check_nothing_are_refused(tmp_path, mnist):
    sums = write(tmp_path, mnist[0])
    with pytest.raises(InputError, match="there is no 'train-imges'"):
        load_mnist(tmp_path, checksums={**sums, "train-imges": "0" * 32})
    with pytest.raises(InputError, match="is no checksum"):
        load_mnist(tmp_path, checksums={"train-images-idx3-ubyte": "md5:xyz"})
    with pytest.raises(InputError, match="verify=False"):
        load_mnist(tmp_path, checksums=sums, verify=False)
    with pytest.raises(InputError, match="give a folder"):
        load_mnist(checksums=sums)


def test_published_checksums_cover_every_name_of_a_file():
    assert len(_PUBLISHED) == 12
    assert all(len(digest) == 32 for digest in _PUBLISHED.values())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-labels-idx1-ubyte", lambda data: data[:-1], "ends after 11 of 12 bytes"),
        ("train-labels-idx1-ubyte", lambda data: data[:-1] + b"\x0a", "for 10 classes"),
        ("t10k-images-idx3-ubyte", lambda data: b"\x80" + data[1:], "magic number"),
        ("t10k-images-idx3-ubyte", lambda data: data + b"\0", "holds more"),
        ("t10k-images-idx3-ubyte", lambda data: b"\0\0\x09" + data[3:], "int8"),
        ("t10k-images-idx3-ubyte", lambda _: b"\0\0\x08\x03" + bytes(12), "expected uint8"),
    ],
)
def test_damaged_files_are_refused(tmp_path, mnist, name, change, message):
    files, _ = mnist
    write(tmp_path, {**files, name: change(files[name])})
    with pytest.raises(InputError, match=message):
        load_mnist(tmp_path, verify=False)


def test_files_that_do_not_belong_together_are_refused(tmp_path, mnist):
    files, _ = mnist
    write(tmp_path, {**files, "t10k-labels-idx1-ubyte": files["train-labels-idx1-ubyte"]})
    with pytest.raises(InputError, match="12 labels for 5 images"):
        load_mnist(tmp_path, verify=False)


def test_a_missing_file_is_named(tmp_path, mnist):
    write(tmp_path, mnist[0])
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="t10k-labels-idx1-ubyte"):
        load_mnist(tmp_path, verify=False)


def test_a_truncated_packed_file_is_refused(tmp_path, mnist):
    write(tmp_path, mnist[0], packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cannot be read"):
        load_mnist(tmp_path, verify=False)


def test_offline_says_what_was_wanted_and_what_to_give(tmp_path, offline):
    with pytest.raises(SpicennError, match="cannot be reached") as caught:
        load_mnist(data_home=tmp_path)
    assert not isinstance(caught.value, InputError)
    assert "mnist_784" in str(caught.value.where)
    assert "four idx files" in str(caught.value.remedy)
