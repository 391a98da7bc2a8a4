"""The page states what the record holds, needs nothing else, and is safe to open."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import spicenn as sn
from spicenn.compiler.embedded import embed
from spicenn.errors import InputError, Status
from spicenn.kirchhoff import crossbar_currents
from spicenn.report import Evidence, numbers, write_report
from spicenn.report.chips import as_pictures
from spicenn.report.crosscheck import headline, statement
from spicenn.report.numbers import full_scale, ideal_outputs
from spicenn.report.tile import view
from spicenn.study.crosscheck import agreement
from tests.report.conftest import CHIPS, HOSTILE, Net


class Reader(HTMLParser):
    """Collects tags, whatever loads something, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "data")
        ]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_failed_and_pending_chips_count_against_yield(study: xr.Dataset, x: np.ndarray) -> None:
    """Four of six chips have outputs; at best four of six pass."""
    stated = numbers(study)
    point = stated.points[0]
    assert stated.kind == "agreement"
    assert stated.ideal == 1.0
    assert np.isnan(point.score[[2, 5]]).all()
    assert point.failed == 1
    good = np.isfinite(point.score) & (point.score >= 0.95 - 1e-12)
    assert point.passed.estimate == pytest.approx(good.sum() / CHIPS)
    assert point.tail.estimate == -np.inf  # the worst twentieth is a chip that has no output
    worst = stated.worst(point)
    assert worst is not None
    assert point.score[worst] == np.nanmin(point.score)


def test_ideal_outputs_are_the_torch_models(design: sn.Design, x: np.ndarray) -> None:
    with torch.no_grad():
        expected = Net().eval()(torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(ideal_outputs(design, (x,))[0], expected, rtol=1e-5, atol=1e-6)


def test_accuracy_is_counted_against_the_labels(study: xr.Dataset) -> None:
    labels = np.zeros(20, np.int64)
    point = numbers(study, labels).points[0]
    right = (study["output"].values[0, 0].argmax(axis=-1) == 0).mean()
    assert point.score[0] == pytest.approx(right)


@pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.zeros((20, 2), np.int64)])
def test_labels_that_do_not_fit_are_refused(study: xr.Dataset, labels: np.ndarray) -> None:
    with pytest.raises(InputError, match="labels"):
        numbers(study, labels)


def test_the_page_stands_alone_and_hostile_text_stays_text(
    study: xr.Dataset, tmp_path: Path
) -> None:
    """No script, nothing loaded from anywhere, every name of the record escaped."""
    page = write_report(study, tmp_path / "r.html")
    text = page.read_text("utf-8")
    reader = Reader(text)
    assert reader.open == []
    assert not {"script", "iframe", "object", "link", "embed"} & set(reader.tags)
    assert all(link.startswith(("#", "data:image/png")) for link in reader.links)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 2  # the failed chip's message, the version
    assert reader.tags.count("svg") == 3  # chips, tile, samples (4 by 4 pictures)
    identifiers = re.findall(r'\bid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_a_models_hostile_name_stays_text(
    study: xr.Dataset, design: sn.Design, tmp_path: Path
) -> None:
    named = replace(design, name=HOSTILE)
    ds = study.assign(design=("byte", embed(named)))
    text = write_report(ds, tmp_path / "r.html").read_text("utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_the_same_study_gives_the_same_page(study: xr.Dataset, tmp_path: Path) -> None:
    first = write_report(study, tmp_path / "a.html").read_bytes()
    assert write_report(study, tmp_path / "b.html").read_bytes() == first


def test_a_folder_gets_an_index_and_pictures(study: xr.Dataset, tmp_path: Path) -> None:
    page = write_report(study, tmp_path / "out", pictures=True)
    assert page == tmp_path / "out" / "index.html"
    names = {path.name for path in page.parent.iterdir()}
    assert {"chips.png", "chips.svg", "tile.png", "tile.svg", "samples.png"} <= names


def test_the_callers_matplotlib_settings_survive(study: xr.Dataset, tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    write_report(study, tmp_path / "r.html")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("all_failed", [True, False])
def test_a_study_without_any_good_chip_still_has_a_page(
    study: xr.Dataset, tmp_path: Path, all_failed: bool
) -> None:
    status = Status.CRASH if all_failed else Status.PENDING
    ds = study.copy(deep=True)
    ds["status"][:] = int(status)
    ds["output"][:] = np.nan
    text = write_report(ds, tmp_path / "r.html").read_text("utf-8")
    assert ("6 failed" if all_failed else "0 failed") in text


def test_the_error_of_a_surrogate_is_over_full_scale() -> None:
    truth = np.zeros((5, 2))
    ideal = np.tile([0.0, 4.0], (5, 1))
    evidence = Evidence(9, "nodal", truth, ideal, truth + 0.4, truth - 0.04, "32", True, "")
    assert full_scale(ideal) == 4.0
    assert evidence.error(evidence.before) == pytest.approx(0.1)
    assert evidence.gain == pytest.approx(10.0)


def test_a_refused_calibration_is_said_so(study: xr.Dataset, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 3))
    evidence = Evidence(9, "nodal", a, b, b, b, "8", False, HOSTILE)
    text = write_report(study, tmp_path / "r.html", evidence=evidence).read_text("utf-8")
    assert "The calibration was refused: &lt;script&gt;" in text
    assert "smaller error" not in text


@pytest.mark.parametrize(
    ("found", "said", "marked"),
    [
        ([2e-9, np.nan, 5.0, np.nan, 1e-9, 7.0], "2 runs compared with ngspice, worst", False),
        ([2e-9, 0.5, np.nan, np.nan, np.nan, np.nan], "1 of 2 runs", True),
        ([np.inf, 1e-9, np.nan, np.nan, np.nan, np.nan], "because ngspice failed", True),
        ([np.nan] * 6, "None of these chips", False),
    ],
)
def test_a_crosscheck_is_stated_and_marked_where_it_fails(
    study: xr.Dataset, found: list[float], said: str, marked: bool
) -> None:
    """Chip 2 failed and chip 5 has not run: what their discrepancy holds means nothing."""
    ds = study.assign(discrepancy=("chip", found))
    compared = agreement(ds.assign_attrs(crosscheck=0.3, crosscheck_bound=1e-6))
    assert compared is not None
    text = statement(compared)
    assert said in text
    assert "30 % of the chips" in text
    assert ('class="refused"' in text) == marked
    shown = headline(compared, "nodal")
    assert (shown and shown[0]) == (None if np.isnan(found).all() else "warm" if marked else "")


def test_the_page_shows_a_crosscheck_only_where_there_is_one(
    study: xr.Dataset, tmp_path: Path
) -> None:
    ds = study.assign(discrepancy=("chip", [2e-9, 0.5, *[np.nan] * 4]))
    ds = ds.assign_attrs(crosscheck=0.3, crosscheck_bound=1e-6)
    text = write_report(ds, tmp_path / "r.html").read_text("utf-8")
    assert '<section id="crosscheck">' in text
    assert '<div class="figure warm"><b>5.0e-01</b><span>worst discrepancy of nodal' in text
    without = write_report(study, tmp_path / "w.html").read_text("utf-8")
    assert "ngspice" not in without


def test_the_drawn_voltages_give_the_tiles_currents(design: sn.Design, x: np.ndarray) -> None:
    """Cells' currents at the drawn voltages add up to the bitlines' currents."""
    tile = design.tiles[0]
    seen = view(design, 3, 1, (x,), tile)
    assert seen.v is not None
    assert seen.current is not None
    solved = crossbar_currents(seen.g, seen.v, r_wordline=2.0, r_bitline=2.0, details=True)
    word, bit = solved.wordline_voltage, solved.bitline_voltage
    np.testing.assert_allclose(((word - bit) * seen.g).sum(axis=0), seen.current, rtol=1e-9)
    assert seen.lost is not None
    np.testing.assert_allclose(seen.lost, np.abs(seen.v[:, None] - (word - bit)))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64,), (8, 8)), ((1, 5, 7), (5, 7)), ((5, 7), (5, 7)), ((10,), None), ((3, 8, 8), None)],
)
def test_inputs_that_look_like_pictures(
    shape: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    pictures = as_pictures(np.zeros((2, *shape)))
    assert (None if pictures is None else pictures.shape[1:]) == expected
