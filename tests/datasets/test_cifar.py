"""CIFAR-10 from its binary version, archives that are not what they seem included."""

import io
import tarfile

import numpy as np
import pytest

from spicenn.datasets import load_cifar10
from spicenn.errors import InputError, SpicennError
from tests.datasets.conftest import md5

NAMES = [*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"]
INNER = "cifar-10-batches-bin"


@pytest.fixture
def batches():
    rng = np.random.default_rng(2)
    records = rng.integers(0, 256, (6, 4, 3073), dtype=np.uint8)
    records[..., 0] %= 10
    return records


def files(batches):
    return {name: records.tobytes() for name, records in zip(NAMES, batches, strict=True)}


def member(name, data=b"", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def pack(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def original(batches):
    # The order of the members is not that of the batches, as in the original.
    inner = [member(f"{INNER}/{name}", data) for name, data in files(batches).items()]
    folder = member(INNER, type=tarfile.DIRTYPE)
    return [folder, inner[4], member(f"{INNER}/readme.html", b"<p>"), *inner[:4], inner[5]]


def check(images, batches):
    assert images.train.shape == (20, 3, 32, 32)
    assert images.test.shape == (4, 3, 32, 32)
    np.testing.assert_array_equal(images.train_labels, batches[:5, :, 0].ravel())
    # Red, green, blue; each row by row.
    record = batches[1, 2, 1:]
    image = images.train[6]
    for channel, row, column in [(0, 0, 0), (1, 0, 5), (2, 31, 30)]:
        level = record[channel * 1024 + row * 32 + column]
        assert image[channel, row, column] == np.float32(level / 255)


def test_files_become_images(tmp_path, batches):
    for name, data in files(batches).items():
        (tmp_path / name).write_bytes(data)
    steps = []
    check(load_cifar10(tmp_path, verify=False, progress=lambda *s: steps.append(s)), batches)
    assert steps[-1] == (6, 6)
    sums = {name: md5(data) for name, data in files(batches).items()}
    check(load_cifar10(tmp_path, checksums=sums), batches)


@pytest.mark.parametrize("given", ["folder", "archive"])
def test_an_archive_is_read_without_unpacking(tmp_path, batches, given):
    path = pack(tmp_path / "cifar-10-binary.tar.gz", original(batches))
    images = load_cifar10(tmp_path if given == "folder" else path, verify=False)
    check(images, batches)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_limit_takes_the_first_of_either_part(tmp_path, batches):
    pack(tmp_path / "cifar-10-binary.tar.gz", original(batches))
    whole = load_cifar10(tmp_path, verify=False)
    some = load_cifar10(tmp_path, verify=False, limit=6)
    np.testing.assert_array_equal(some.train, whole.train[:6])
    np.testing.assert_array_equal(some.test_labels, whole.test_labels)


def test_other_data_than_the_published_are_refused_unless_told(tmp_path, batches):
    path = pack(tmp_path / "cifar-10-binary.tar.gz", original(batches))
    with pytest.raises(InputError, match="expected c32a1d4ab5d03f1284b67883e8d87530"):
        load_cifar10(tmp_path)
    sums = {path.name: md5(path.read_bytes()), "test_batch.bin": md5(batches[5].tobytes())}
    load_cifar10(tmp_path, checksums=sums)
    with pytest.raises(InputError, match=r"test_batch\.bin"):
        load_cifar10(tmp_path, checksums={**sums, "test_batch.bin": "0" * 32})


def test_files_without_a_checksum_have_at_least_the_original_length(tmp_path, batches):
    for name, data in files(batches).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match="the original has 30730000"):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py/", "data_batch_1"])
def test_the_python_version_is_refused_with_a_remedy(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_bytes(b"\x80\x04N.")
    given = [tmp_path, path] if name.endswith("gz") else [tmp_path]
    for folder in given:
        with pytest.raises(InputError, match="pickle") as caught:
            load_cifar10(folder)
        assert "cifar-10-binary.tar.gz" in str(caught.value.remedy)


def test_the_python_version_under_the_binary_name_is_refused(tmp_path):
    path = tmp_path / "cifar-10-binary.tar.gz"
    pack(path, [member("cifar-10-batches-py/data_batch_1", b"\x80\x04N.")])
    with pytest.raises(InputError, match="pickle"):
        load_cifar10(path, verify=False)


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (member("../evil.bin", b"x"), "leads out"),
        (member("/etc/evil", b"x"), "leads out"),
        (member(f"{INNER}/../../evil", b"x"), "leads out"),
        (member(f"{INNER}/test_batch.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "plain"),
        (member(f"{INNER}/x", type=tarfile.LNKTYPE, linkname="../x"), "plain"),
        (member(f"{INNER}/x", type=tarfile.FIFOTYPE), "plain"),
        (member(f"{INNER}/x.bin", bytes(30_730_001)), "has 30730001 bytes"),
        (member(f"{INNER}/test_batch.bin", bytes(3073)), "twice"),
    ],
    ids=["parent", "absolute", "inner parent", "symlink", "link", "fifo", "large", "twice"],
)
def test_hostile_members_are_refused(tmp_path, batches, hostile, message):
    path = tmp_path / "data.tar.gz"
    pack(path, [*original(batches), hostile])
    with pytest.raises(InputError, match=message):
        load_cifar10(path)
    assert not (tmp_path.parent / "evil.bin").exists()


def test_many_members_are_refused(tmp_path, batches):
    path = tmp_path / "data.tar.gz"
    pack(path, [*original(batches), *(member(f"{INNER}/{n}", b"x") for n in range(64))])
    with pytest.raises(InputError, match="over 64 members"):
        load_cifar10(path)


def test_a_header_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spicenn.datasets.cifar._MOST_BYTES", 2**20)
    path = tmp_path / "data.tar.gz"
    long = tarfile.TarInfo("x" * 2_000_000)
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(long)
    with pytest.raises(InputError, match="unpacks to more"):
        load_cifar10(path)


@pytest.mark.parametrize("cut", [10, 500, 20_000])
def test_a_truncated_archive_is_refused(tmp_path, batches, cut):
    path = pack(tmp_path / "data.tar.gz", original(batches))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"can(not)? be read|there is no"):
        load_cifar10(path)


def test_a_missing_batch_is_named(tmp_path, batches):
    path = pack(tmp_path / "data.tar.gz", original(batches)[:-1])
    with pytest.raises(InputError, match=r"there is no test_batch\.bin"):
        load_cifar10(path)
    with pytest.raises(InputError, match="holds neither"):
        load_cifar10(tmp_path / "nowhere")


def test_records_are_whole_and_labels_in_range(tmp_path, batches):
    for name, data in files(batches).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / NAMES[0]).write_bytes(batches[0].tobytes()[:-1])
    with pytest.raises(InputError, match="no whole number of records"):
        load_cifar10(tmp_path, verify=False)
    batches[0, 3, 0] = 10
    (tmp_path / NAMES[0]).write_bytes(batches[0].tobytes())
    with pytest.raises(InputError, match="label 10"):
        load_cifar10(tmp_path, verify=False)


def test_offline_says_what_was_wanted_and_what_to_give(tmp_path, offline):
    with pytest.raises(SpicennError, match="cannot be reached") as caught:
        load_cifar10(data_home=tmp_path)
    assert "cifar-10-binary.tar.gz" in str(caught.value.remedy)
