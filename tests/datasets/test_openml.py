"""scikit-learn's own client against a service that answers from memory: no network."""

import io
import json
import socket
import urllib.request
import urllib.response
from email.message import Message

import numpy as np
import pytest

from spicenn.datasets.openml import Listing, fetch
from spicenn.errors import InputError, SpicennError
from tests.datasets.conftest import md5

LISTING = Listing("tiny", 1, (1, 2, 2), 4, 2, ("0", "1", "2"), "its files")
PIXELS = np.arange(24).reshape(6, 4) * 11
LABELS = np.array([0, 1, 2, 0, 1, 2])


class Answer(urllib.response.addinfourl):
    msg = "OK"


class Service(urllib.request.BaseHandler):
    """Answers every request of the client by the request's path."""

    def __init__(self, pixels=PIXELS, labels=LABELS, checksum=None, row="{},{}"):
        names = [f"p{index}" for index in range(pixels.shape[1])]
        rows = [
            row.format(",".join(map(str, values)), label)
            for values, label in zip(pixels, labels, strict=True)
        ]
        head = ["@RELATION tiny", *(f"@ATTRIBUTE {name} REAL" for name in names)]
        head += ["@ATTRIBUTE class {0,1,2,3}", "@DATA"]
        self.data = "\n".join([*head, *rows, ""]).encode()
        self.asked = []
        description = {
            "id": "7", "name": "tiny", "version": "1", "format": "ARFF", "status": "active",
            "file_id": "9", "default_target_attribute": "class", "description": "",
            "url": "https://service.invalid/data/v1/download/9/tiny.arff",
            "md5_checksum": checksum or md5(self.data), "processing_date": "",
        }  # fmt: skip
        features = [
            {
                "index": str(index), "name": name, "is_ignore": "false",
                "data_type": "nominal" if name == "class" else "numeric",
                "is_target": str(name == "class").lower(),
                "is_row_identifier": "false", "number_of_missing_values": "0",
            }
            for index, name in enumerate([*names, "class"])
        ]  # fmt: skip
        self.answers = {
            "/data/list/": {"data": {"dataset": [{"did": 7, "version": 1, "status": "active"}]}},
            "/data/features/": {"data_features": {"feature": features}},
            "/data/qualities/": {
                "data_qualities": {"quality": [{"name": "NumberOfInstances", "value": "6"}]}
            },
            "/json/data/7": {"data_set_description": description},
        }

    def https_open(self, request):
        self.asked.append(request.full_url)
        body = self.data
        for part, answer in self.answers.items():
            if part in request.full_url:
                body = json.dumps(answer).encode()
        return Answer(io.BytesIO(body), Message(), request.full_url, code=200)

    http_open = https_open


@pytest.fixture
def serve(monkeypatch):
    def start(**options):
        def refuse(*_args, **_more):
            raise AssertionError("a socket was opened")

        monkeypatch.setattr(socket, "socket", refuse)
        service = Service(**options)
        opener = urllib.request.OpenerDirector()
        opener.add_handler(service)
        monkeypatch.setattr(urllib.request, "_opener", opener)
        return service

    return start


@pytest.mark.parametrize("row", ["{},{}", "{},'{}'"])
def test_rows_become_images_and_are_kept(serve, tmp_path, monkeypatch, row):
    service = serve(row=row)
    images = fetch(LISTING, tmp_path, None)
    assert images.train.shape == (4, 1, 2, 2)
    want = (PIXELS / 255).astype(np.float32).reshape(-1, 1, 2, 2)
    np.testing.assert_array_equal(np.concatenate([images.train, images.test]), want)
    np.testing.assert_array_equal(images.train_labels, LABELS[:4])
    np.testing.assert_array_equal(images.test_labels, LABELS[4:])
    asked = len(service.asked)
    assert asked >= 4
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.OpenerDirector())
    some = fetch(LISTING, tmp_path, 1)  # nobody answers any more
    assert (len(some.train), len(some.test)) == (1, 1)
    np.testing.assert_array_equal(some.test, images.test[:1])


def test_a_file_that_is_not_the_described_one_is_refused(serve, tmp_path):
    serve(checksum="0" * 32)
    with pytest.raises(InputError, match="checksum") as caught:
        fetch(LISTING, tmp_path, None)
    assert "its files" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels": PIXELS[:5], "labels": LABELS[:5]}, "6 images"),
        ({"pixels": PIXELS + 100}, "outside 0 … 255"),
        ({"labels": LABELS + 1}, "label '3' for 3 classes"),
        ({"row": "x{},{}"}, "is not the data set"),
        ({"row": "{},1,{}"}, "is not the data set"),
    ],
)
def test_what_does_not_fit_the_listing_is_refused(serve, tmp_path, options, message):
    serve(**options)
    with pytest.raises(InputError, match=message):
        fetch(LISTING, tmp_path, None)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, serve):
    serve()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cache cannot be used"):
        fetch(LISTING, tmp_path / "file" / "cache", None)


def test_offline_is_no_fault_of_the_arguments(tmp_path, offline):
    with pytest.raises(SpicennError, match="cannot be reached") as caught:
        fetch(LISTING, tmp_path, None)
    assert not isinstance(caught.value, InputError)
