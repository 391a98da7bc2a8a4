"""Colours, type and the way from a figure to SVG or PNG; no pyplot, no global state kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#18222d"
MUTED = "#66717d"
FAINT = "#dfe4e8"
PLUS = "#1d6fa5"
MINUS = "#c8562c"
PALE = "#a9c6da"

# Text stays text in the SVG and takes the page's own font.
FONT = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "figure.facecolor": "white",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save in this style; the caller's own settings come back afterwards."""
    import matplotlib

    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, laid out without overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def grid(axes: Axes, axis: str = "y") -> None:
    """Quiet lines behind the data."""
    axes.grid(axis=axis, color=FAINT, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def bare(axes: Axes) -> None:
    """Leave nothing but the data."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def to_svg(figure: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    # The salt keeps identifiers of several figures in one page apart.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Only what something refers to keeps its identifier: the others repeat between figures.
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    return text.replace("'DejaVu Sans'", FONT).strip()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a picture; the suffix says which kind."""
    figure.savefig(path, dpi=160)
