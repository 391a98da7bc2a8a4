"""The figure of a training run shows what its log holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spicenn.errors import InputError
from spicenn.report.training import plot_training, training_figure
from spicenn.training.run import Epoch


def _log(*, classes: bool, validation: bool) -> list[Epoch]:
    return [
        Epoch(
            epoch=k,
            step=10 * k,
            loss=1 / k,
            accuracy=1 - 0.5 / k if classes else None,
            validation_loss=1.5 / k if validation else None,
            validation_accuracy=1 - 0.6 / k if classes and validation else None,
            seconds=float(k),
        )
        for k in (1, 2, 3)
    ]


@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("validation", [True, False])
def test_every_series_of_the_log_is_drawn(classes: bool, validation: bool) -> None:
    log = _log(classes=classes, validation=validation)
    figure = training_figure(log)
    assert len(figure.axes) == 1 + classes
    for axes in figure.axes:
        assert len(axes.lines) == 1 + validation
    assert np.asarray(figure.axes[0].lines[0].get_ydata()).tolist() == [1, 1 / 2, 1 / 3]
    if classes:
        shown = figure.axes[1].lines[-1].get_ydata()
        last = 100 * (1 - (0.6 if validation else 0.5) / 3)
        assert np.asarray(shown)[-1] == pytest.approx(last)


def test_a_picture_is_written_or_refused(tmp_path: Path) -> None:
    log = _log(classes=True, validation=True)
    plot_training(log, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="picture"):
        plot_training(log, tmp_path / "a.nonsense")
    with pytest.raises(InputError, match="without epochs"):
        plot_training([], tmp_path / "b.png")
