"""The picture shows the record's numbers: lines by unit, a row of marks for each event."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spicenn.cosim.record import Happening, dataset_of
from spicenn.errors import InputError
from spicenn.report.cosim import _POINTS, _thinned, cosim_figure
from spicenn.report.style import drawing, save


def block(points, probes):
    time = np.linspace(0.0, 2e-6, points)
    traces = {name: np.sin(1e6 * time + k) * (1e-5 if name.startswith("i(") else 1.0)
              for k, name in enumerate(probes)}  # fmt: skip
    return SimpleNamespace(traces=lambda: (time, traces))


def event(time, kind, name):
    return Happening(time, kind, name, 1.0, "p", {})


def axes_of(*arguments) -> Any:
    return cosim_figure(*arguments).axes


EVENTS = [
    event(0.0, "emit", "spike"),
    event(5e-7, "crossing", "out"),
    event(1e-6, "drive", "vin"),
    event(1e-6, "emit", "spike"),
]


def test_lines_and_marks_are_the_records_in_engineering_units():
    ds = dataset_of({"": block(50, ["out", "i(vdd)", "_in"])}, EVENTS, 2e-6)
    with drawing():
        volts, amperes, marks = axes_of(ds)
    assert [axes.get_ylabel() for axes in (volts, amperes)] == ["V", "µA"]
    assert [text.get_text().strip() for text in volts.get_legend().get_texts()] == ["out", "_in"]
    np.testing.assert_allclose(volts.lines[0].get_ydata(), ds["out"].values)
    np.testing.assert_allclose(amperes.lines[0].get_ydata(), ds["i(vdd)"].values * 1e6)
    np.testing.assert_allclose(volts.lines[0].get_xdata(), ds["time"].values * 1e6)
    assert marks.get_xlabel() == "time, µs"
    assert volts.get_xlim() == marks.get_xlim()
    rows = [text.get_text() for text in marks.get_yticklabels()]
    assert rows == ["vin", "out", "spike"]
    found = [collection.get_offsets().tolist() for collection in marks.collections]
    assert found == [[[1.0, 0.0]], [[0.5, 1.0]], [[0.0, 2.0], [1.0, 2.0]]]
    colours = {tuple(collection.get_edgecolor()[0]) for collection in marks.collections}
    assert len(colours) == 3


def test_a_panel_holds_six_lines_of_one_block_and_one_unit():
    ds = dataset_of({"a": block(5, [f"n{k}" for k in range(8)]), "b": block(9, ["n0"])}, [], 2e-6)
    with drawing():
        *panels, _ = axes_of(ds)
    assert [len(axes.lines) for axes in panels] == [6, 2, 1]
    assert [len(axes.lines[0].get_xdata()) for axes in panels] == [5, 5, 9]


def test_chosen_probes_alone_are_drawn_and_an_unknown_one_is_named():
    ds = dataset_of({"a": block(5, ["in", "out"])}, EVENTS, 2e-6)
    with drawing():
        panel, _ = axes_of(ds, ["a:out"])
    assert len(panel.lines) == 1
    with pytest.raises(InputError, match="no probe 'out' in the record; there is a:out"):
        cosim_figure(ds, ["out"])


def test_a_large_record_is_cut_to_what_can_be_seen_and_says_so(tmp_path):
    many = [event(k * 1e-8, "emit", f"neuron {k}") for k in range(150)]
    ds = dataset_of({"": block(3, [f"n{k}" for k in range(50)])}, many, 2e-6)
    with drawing():
        figure = cosim_figure(ds)
        save(figure, tmp_path / "x.png")
    assert len(figure.axes) == 7
    assert figure.get_supxlabel() == "14 more probes are in the record"
    assert len(figure.axes[-1].get_yticklabels()) <= 40
    assert figure.get_size_inches()[1] < 25


def test_a_record_of_nothing_is_drawn(tmp_path):
    ds = dataset_of({"": SimpleNamespace(traces=lambda: (np.zeros(0), {}))}, [], 0.0)
    with drawing():
        save(cosim_figure(ds), tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_long_trace_keeps_every_extreme():
    """A spike of one point among a million is what one looks for."""
    values = np.zeros(1_000_000)
    values[[123_457, 999_998]] = 1.0, -1.0
    kept = _thinned(values)
    assert {0, 123_457, 999_998, 999_999} <= set(kept.tolist())
    assert kept.size <= 2 * _POINTS + 2
    assert (np.diff(kept) > 0).all()
