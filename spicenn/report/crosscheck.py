"""What the page says of a study's crosscheck."""

from __future__ import annotations

from html import escape
from math import isinf

from spicenn.study.crosscheck import Agreement


def statement(found: Agreement) -> str:
    """HTML that says how the study's engine compares with ngspice, marked where it disagrees."""
    about = (
        f"{100 * found.share:g} % of the chips, chosen by their index, also run in ngspice: every "
        "tile with the same cells at the same voltages. The discrepancy of a chip is its largest "
        "difference of a bitline's current over the largest current of the tile. "
    )
    finding = f"{found.finding[:1].upper()}{found.finding[1:]}."
    if not found.exceeded:
        return escape(about + finding)
    warning = f"{finding} Do not trust the outputs of this study."
    return f'{escape(about)}<span class="refused">{escape(warning)}</span>'


def headline(found: Agreement, engine: str) -> tuple[str, str, str, str] | None:
    """Kind, figure, what it is and what to compare it with; None where nothing was compared."""
    if not found.checked:
        return None
    kind = "warm" if found.exceeded else ""
    figure = "∞" if isinf(found.worst) else f"{found.worst:.1e}"
    verdict = f"{found.exceeded} beyond" if found.exceeded else "none beyond"
    return (
        kind,
        figure,
        f"worst discrepancy of {engine} to ngspice",
        f"of {found.checked} compared, {verdict} the bound {found.bound:g}",
    )
