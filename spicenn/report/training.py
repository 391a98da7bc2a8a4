"""Figure of a training run: its loss and its accuracy, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spicenn.errors import InputError
from spicenn.report.style import MINUS, PLUS, drawing, grid, new_figure, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spicenn.training.run import Epoch


def training_figure(log: Sequence[Epoch]) -> Figure:
    """Loss, and accuracy where there is one, as trained and on validation data.

    Draw it within ``style.drawing``. Raises InputError for a log without epochs.
    """
    if not log:
        raise InputError("a log without epochs")
    parts = [("loss", "Loss", 1.0), ("accuracy", "Accuracy, %", 100.0)]
    if log[0].accuracy is None:
        parts = parts[:1]
    figure = new_figure(4.6 * len(parts), 3.2)
    epochs = [row.epoch for row in log]
    for axes, (name, title, unit) in zip(
        figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True
    ):
        for key, label, colour in (
            (name, "training", PLUS), (f"validation_{name}", "validation", MINUS),
        ):  # fmt: skip
            values = [getattr(row, key) for row in log]
            if values[0] is not None:
                shown = [unit * value for value in values]
                axes.plot(epochs, shown, color=colour, marker=".", label=label)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        grid(axes)
        axes.legend()
    return figure


def plot_training(log: Sequence[Epoch], path: Path) -> None:
    """Write the figure as a picture; the suffix says which kind. Raises InputError.

    It does so where the log has no epochs, or the picture cannot be written.
    """
    try:
        with drawing():
            save(training_figure(log), path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the picture cannot be written: {error}", where=str(path)) from error
