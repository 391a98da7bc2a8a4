"""Images in folders and archives; names and pixels that are not what they seem."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spicenn.datasets import load_images, load_tiny_imagenet
from spicenn.errors import InputError
from tests.datasets.conftest import md5


def encode(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def flat(level, shape=(6, 5, 3)):
    """An image of one level: JPEG keeps it to within one."""
    return np.full(shape, level, np.uint8)


def grow(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def pack(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


TREE = {
    "cat/b.png": encode(flat(20)),
    "cat/a.JPG": encode(flat(10), "JPEG"),
    "cat/c.png": encode(flat(30)),
    "cat/.hidden.png": b"",
    "cat/notes.txt": b"no image",
    "dog/1.jpeg": encode(flat(200), "JPEG"),
    "readme.md": b"text",
}


@pytest.mark.parametrize("packed", [False, True])
def test_classes_come_in_turn_and_files_by_name(tmp_path, packed):
    given = pack(tmp_path / "x.zip", TREE) if packed else grow(tmp_path / "x", TREE)
    steps = []
    images = load_images(given, progress=lambda *step: steps.append(step))
    assert images.classes == ("cat", "dog")
    assert images.train_labels.tolist() == [0, 1, 0, 0]
    levels = np.round(images.train[:, 0, 0, 0] * 255)
    np.testing.assert_allclose(levels, [10, 200, 20, 30], atol=1)
    assert images.train.shape == (4, 3, 6, 5)
    assert images.test.shape == (0, 3, 6, 5)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_png_levels_are_exact_and_axes_are_channel_height_width(tmp_path):
    array = np.random.default_rng(3).integers(0, 256, (4, 7, 3), dtype=np.uint8)
    grow(tmp_path, {"a/1.png": encode(array)})
    want = (np.moveaxis(array, -1, 0) / 255).astype(np.float32)
    np.testing.assert_array_equal(load_images(tmp_path).train[0], want)
    grey = load_images(tmp_path, channels=1).train[0, 0]
    np.testing.assert_allclose(grey, array @ [0.299, 0.587, 0.114] / 255, atol=1 / 255)


def test_a_second_folder_tests(tmp_path):
    grow(tmp_path / "train", TREE)
    grow(tmp_path / "test", {"cat/9.png": encode(flat(9)), "dog/9.png": encode(flat(99))})
    images = load_images(tmp_path / "train", tmp_path / "test", limit=2)
    assert (len(images.train), images.test_labels.tolist()) == (2, [0, 1])
    grow(tmp_path / "test", {"cow/9.png": encode(flat(9))})
    with pytest.raises(InputError, match="cow"):
        load_images(tmp_path / "train", tmp_path / "test")


def test_images_of_one_size_or_scaled_to_one(tmp_path):
    grow(tmp_path, {"a/1.png": encode(flat(8)), "a/2.png": encode(flat(8, (3, 5, 3)))})
    with pytest.raises(InputError, match="has 3×5 pixels, the first image 6×5"):
        load_images(tmp_path)
    images = load_images(tmp_path, size=(8, 4))
    assert images.train.shape == (2, 3, 8, 4)
    np.testing.assert_array_equal(images.train, np.float32(8 / 255))


def test_a_checksum_by_name_is_compared(tmp_path):
    grow(tmp_path, TREE)
    load_images(tmp_path, checksums={"cat/b.png": md5(TREE["cat/b.png"])})
    with pytest.raises(InputError, match=r"cat/b\.png.*checksum"):
        load_images(tmp_path, checksums={"cat/b.png": "0" * 40})
    with pytest.raises(InputError, match="there is no"):
        load_images(tmp_path, checksums={"cat/d.png": "0" * 40})


def bomb():
    """A PNG that claims 60000×60000 pixels in some hundred bytes."""
    import struct
    import zlib

    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no PNG or JPEG"),
        (b"GIF89a" + bytes(20), "is no PNG or JPEG"),
        (encode(flat(3), "GIF"), "is no PNG or JPEG"),
        (encode(flat(3), "BMP"), "is no PNG or JPEG"),
        (encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[:2000], "PNG"),
        (encode(np.zeros((4, 4), np.uint16)), "eight bits"),
        (encode(np.zeros((4097, 4097), np.uint8)), "4097×4097 pixels"),
        (bomb(), "pixels"),
    ],
    ids=["empty", "gif head", "gif", "bmp", "truncated", "16 bits", "large", "bomb"],
)
def test_what_is_no_plain_image_is_refused(tmp_path, data, message):
    grow(tmp_path, {"a/1.png": data})
    with pytest.raises(InputError, match=message) as caught:
        load_images(tmp_path)
    assert "a/1.png" in str(caught.value.where)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path):
    grow(tmp_path / "x", {"a/1.png": encode(flat(1))})
    (tmp_path / "x/a/2.png").symlink_to("1.png")
    assert len(load_images(tmp_path / "x").train) == 2
    grow(tmp_path, {"secret.png": encode(flat(2))})
    (tmp_path / "x/a/3.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="leads out"):
        load_images(tmp_path / "x")


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png", "c:/1.png"])
def test_an_archive_with_a_member_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="leads out"):
        load_images(pack(tmp_path / "x.zip", {"a/0.png": encode(flat(1)), name: b""}))


def test_archives_with_links_or_damage_are_refused(tmp_path):
    link = zipfile.ZipInfo("a/1.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        load_images(tmp_path / "link.zip")
    whole = pack(tmp_path / "x.zip", {"a/1.png": encode(flat(1))})
    changed = bytearray(whole.read_bytes())
    changed[60] ^= 1
    (tmp_path / "damaged.zip").write_bytes(changed)
    with pytest.raises(InputError, match="cannot be read"):
        load_images(tmp_path / "damaged.zip")
    (tmp_path / "cut.zip").write_bytes(whole.read_bytes()[:-30])
    with pytest.raises(InputError, match="no zip archive"):
        load_images(tmp_path / "cut.zip")


def test_a_member_that_unpacks_to_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("spicenn.datasets.reading.MOST_MEMBER_BYTES", 2**20)
    path = pack(tmp_path / "x.zip", {"a/1.png": bytes(2**20 + 1)})
    assert path.stat().st_size < 4096
    with pytest.raises(InputError, match="1048577 bytes, more"):
        load_images(path)
    with pytest.raises(InputError, match="1048577 bytes, more"):
        load_images(grow(tmp_path / "x", {"a/1.png": bytes(2**20 + 1)}))


@pytest.mark.parametrize("given", ["nothing", "empty", "flat"])
def test_a_folder_without_classes_is_refused(tmp_path, given):
    grow(tmp_path, {"empty/a/x.txt": b"", "flat/1.png": encode(flat(1))})
    with pytest.raises(InputError, match=r"holds no images|no folder"):
        load_images(tmp_path / given)


def test_wrong_arguments_are_refused(tmp_path):
    grow(tmp_path, TREE)
    with pytest.raises(InputError, match="channels"):
        load_images(tmp_path, channels=2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="limit"):
        load_images(tmp_path, limit=0)


def tiny(levels=(10, 60)):
    """Two classes of two images, three to validate with, one of them grey."""
    shape = (64, 64, 3)
    files = {"wnids.txt": b"n02\nn01\n", "words.txt": b"n01\tgoldfish\n"}
    for name, level in zip(("n01", "n02"), levels, strict=True):
        for index in range(2):
            data = encode(flat(level + index, shape), "JPEG")
            files[f"train/{name}/images/{name}_{index}.JPEG"] = data
        files[f"train/{name}/{name}_boxes.txt"] = b"x\t0\t0\t1\t1\n"
    lines = []
    for index, name in enumerate(("n02", "n01", "n02")):
        grey = flat(100 + 10 * index, shape[:2] if index == 1 else shape)
        files[f"val/images/val_{index}.JPEG"] = encode(grey, "JPEG")
        lines.append(f"val_{index}.JPEG\t{name}\t0\t0\t9\t9\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    files["test/images/test_0.JPEG"] = encode(flat(1, shape), "JPEG")
    return files


def prefixed(files):
    return {f"tiny-imagenet-200/{name}": data for name, data in files.items()}


@pytest.mark.parametrize("given", ["folder", "above", "archive", "folder of archive"])
def test_tiny_imagenet_by_folder_and_archive(tmp_path, given):
    path = tmp_path
    if given == "folder":
        grow(tmp_path, tiny())
    elif given == "above":
        grow(tmp_path, prefixed(tiny()))
    else:
        archive = pack(tmp_path / "tiny-imagenet-200.zip", prefixed(tiny()))
        path = archive if given == "archive" else tmp_path
    verify = "archive" not in given
    images = load_tiny_imagenet(path, verify=verify)
    assert images.classes == ("n01", "n02")
    assert images.train_labels.tolist() == [0, 1, 0, 1]
    assert images.test_labels.tolist() == [1, 0, 1]
    assert images.train.shape == (4, 3, 64, 64)
    for got, want in ((images.train, [10, 60, 11, 61]), (images.test, [100, 110, 120])):
        np.testing.assert_allclose(np.round(got[:, 2, 5, 5] * 255), want, atol=1)
    some = load_tiny_imagenet(path, verify=verify, limit=2)
    np.testing.assert_array_equal(some.train, images.train[:2])
    np.testing.assert_array_equal(some.test, images.test[:2])


def test_the_archive_has_its_published_checksum(tmp_path):
    path = pack(tmp_path / "tiny-imagenet-200.zip", prefixed(tiny()))
    with pytest.raises(InputError, match="expected 90528d7ca1a48142e341f4ef8d21d0de"):
        load_tiny_imagenet(path)
    load_tiny_imagenet(path, checksums={path.name: md5(path.read_bytes())})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val/val_annotations.txt": None}, "holds no val/val_annotations.txt"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn03\t0\n"}, "line 1.*no class"),
        ({"val/val_annotations.txt": b"val_0.JPEG\n"}, "line 1"),
        ({"val/val_annotations.txt": b"val_0.JPEG\tn01\n../x.JPEG\tn01\n"}, "line 2.*no image"),
        ({"val/val_annotations.txt": b"\xff\n"}, "plain text"),
        ({"wnids.txt": b"n01 n02 n03"}, "n03 is listed"),
        ({"val/images/val_2.JPEG": b"\xff\xd8\xff"}, "no PNG or JPEG"),
        ({"val/images/val_2.JPEG": encode(flat(1), "JPEG")}, "has 6×5 pixels"),
    ],
)
def test_a_damaged_tiny_imagenet_is_refused(tmp_path, change, message):
    files = {name: data for name, data in {**tiny(), **change}.items() if data is not None}
    with pytest.raises(InputError, match=message):
        load_tiny_imagenet(grow(tmp_path / "t", files))


def test_archives_are_not_unpacked(tmp_path):
    path = pack(tmp_path / "tiny-imagenet-200.zip", prefixed(tiny()))
    load_tiny_imagenet(path, verify=False)
    assert list(Path(tmp_path).iterdir()) == [path]
