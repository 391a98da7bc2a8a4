"""The report: one HTML file that needs nothing else, and its figures as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from spicenn import __version__
from spicenn.errors import InputError, Status
from spicenn.report.chips import LABELS, percent, samples_figure, scores_figure
from spicenn.report.crosscheck import headline, statement
from spicenn.report.energy import Costs, energy_figure, headlines, recorded, table
from spicenn.report.energy import statement as energy_statement
from spicenn.report.evidence import Evidence
from spicenn.report.mechanisms import switched_on
from spicenn.report.numbers import MARGIN, Numbers, numbers
from spicenn.report.style import drawing, save, to_svg
from spicenn.report.surrogate import surrogate_figure
from spicenn.report.tile import drawn_tile, tile_figure, view

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# Failed chips that a page lists one by one.
_LISTED = 20


@dataclass(frozen=True, eq=False)
class _Section:
    name: str
    title: str
    text: str  # HTML
    figure: Figure | None = None
    body: str = ""  # HTML


def write_report(
    ds: xr.Dataset,
    path: str | Path,
    *,
    labels: NDArray[Any] | None = None,
    evidence: Evidence | None = None,
    pictures: bool = False,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Path:
    """Write a study as a page.

    Parameters
    ----------
    ds : a study's record, finished or not; energies in its store are shown with it.
    path : an ``.html`` file, or a folder for ``index.html``.
    labels : (sample,) classes; without them chips are compared with the ideal network.
    evidence : of a surrogate on one chip (see ``gather``).
    pictures : also write each figure as SVG and PNG beside the page.
    allow_include, trust_model : for the design in the record, as of ``Design.load``.

    Returns the page's path. Raises InputError where labels do not fit or the page
    cannot be written, DesignError for a record without a design, StoreError for energies
    that cannot be read.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / "index.html"
    stated = numbers(ds, labels, allow_include=allow_include, trust_model=trust_model)
    spent = recorded(ds)
    with drawing():
        sections = _sections(stated, ds, evidence, spent)
        html = _page(stated, sections, evidence, spent)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(target.name + ".part")
            aside.write_text(html, "utf-8")
            aside.replace(target)
            if pictures:
                for section in sections:
                    if section.figure is not None:
                        save(section.figure, target.parent / f"{section.name}.svg")
                        save(section.figure, target.parent / f"{section.name}.png")
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", where=str(target)) from error
    return target


def _sections(
    stated: Numbers, ds: xr.Dataset, evidence: Evidence | None, spent: tuple[Costs, ...]
) -> list[_Section]:
    sections = [_chips_section(stated), *(_energy_section(stated, found) for found in spent)]
    if evidence is not None:
        sections.append(_surrogate_section(evidence))
    if stated.agreement is not None:
        text = statement(stated.agreement)
        sections.append(_Section("crosscheck", "What ngspice says of the same chips", text))
    sections.append(_tile_section(stated, ds))
    samples = samples_figure(stated)
    if samples is not None:
        by = "the labels" if stated.labels is not None else "the ideal network"
        text = (
            "The samples on which chips vote most differently, and the share of chips (and reads) "
            f"that take them for what. Blue is right by {by}."
        )
        sections.append(_Section("samples", "Where chips disagree", text, samples))
    sections += [_status_section(stated), _provenance_section(stated)]
    return sections


def _chips_section(stated: Numbers) -> _Section:
    what = LABELS[stated.kind]
    point = stated.points[0]
    if len(stated.points) > 1:
        text = (
            f"{len(stated.chips)} chips at each of {len(stated.points)} conditions; a chip has "
            "the same cells in all of them. The dashed line is the network without analog errors."
        )
    else:
        limit = percent(stated.threshold)
        text = (
            f"The median chip has {what} {percent(point.median.estimate)}, one in twenty "
            f"{_worse(stated)} {percent(point.tail.estimate)}. "
            f"{percent(point.passed.estimate, 0)} of the chips come within "
            f"{100 * MARGIN:.0f} points of the ideal network ({limit} or better); with "
            f"{len(stated.chips)} chips that is a yield between {percent(point.passed.low, 0)} "
            f"and {percent(point.passed.high, 0)}."
        )
    return _Section("chips", "Every chip is different", escape(text), scores_figure(stated))


def _worse(stated: Numbers) -> str:
    return "is at or below" if stated.higher_is_better else "is at or above"


def _surrogate_section(evidence: Evidence) -> _Section:
    text = escape(
        f"Chip {evidence.chip} was not among the chips of the fit. Every dot is one output for "
        f"one sample that was not a probe: what {evidence.engine} gives, and what the surrogate "
        "predicts without running it."
    )
    if evidence.success:
        ratio = f" Calibration makes the error {evidence.gain:.1f} times smaller."
    else:
        ratio = ""
    if evidence.reason:
        kind = "" if evidence.success else ' class="refused"'
        verdict = "accepted" if evidence.success else "refused"
        said = escape(evidence.reason)
        ratio += f" <span{kind}>The calibration was {verdict}: {said}.</span>"
    return _Section(
        "surrogate",
        "A surrogate of one chip, from a few probes",
        text + ratio,
        surrogate_figure(evidence),
    )


def _energy_section(stated: Numbers, found: Costs) -> _Section:
    titles = {
        "hybrid": "What an inference costs",
        "analog": "What an inference costs as one analog circuit",
    }
    text = energy_statement(found, stated.design.technology)
    if len(stated.points) > 1:
        text += " It is measured in the design's own technology, whatever the sweep sets."
    else:
        median = percent(stated.points[0].median.estimate)
        text += escape(
            f" For that the median chip of this study has {LABELS[stated.kind]} {median}"
            + (", with converters between its layers." if found.mode == "analog" else ".")
        )
    figure = energy_figure(found)
    body = table(found) if figure is not None else ""
    return _Section(f"energy-{found.mode}", titles[found.mode], text, figure, body)


def _tile_section(stated: Numbers, ds: xr.Dataset) -> _Section:
    from spicenn.compiler.embedded import input_names

    design = stated.design
    tile = drawn_tile(design)
    inputs = tuple(ds[name].isel(sample=slice(1)).values for name in input_names(design))
    seen = view(design, stated.chips[0], int(ds.attrs["seed"]), inputs, tile)
    technology = design.technology
    low, high = 1e6 * technology.g_min, 1e6 * technology.g_max
    text = (
        f"Layer {tile.layer.name!r}. A weight is the difference of two cells: blue on the plus "
        f"line, red on the minus line, their area the conductance as manufactured ({low:g} to "
        f"{high:g} µS as designed)."
    )
    if seen.lost is not None:
        text += (
            " Bars at the left are the voltages of one sample, bars below the currents that it "
            f"draws. With {technology.r_wordline:g} Ω per wordline segment and "
            f"{technology.r_bitline:g} Ω per bitline segment, wires take up to "
            f"{1e3 * float(seen.lost.max()):.2g} mV of {1e3 * technology.v_read:g} mV."
        )
    figure = tile_figure(seen, technology.g_max)
    return _Section("tile", "What is on the chip", escape(text), figure)


def _status_section(stated: Numbers) -> _Section:
    counts = {s: sum(int((p.status == s).sum()) for p in stated.points) for s in Status}
    rows = [
        _row(status.name.lower().replace("_", " "), count, "counts against yield")
        if status not in (Status.OK, Status.PENDING)
        else _row(status.name.lower(), count, "" if status is Status.OK else "has not run yet")
        for status, count in counts.items()
        if count or status is Status.OK
    ]
    failures = [
        (chip, point, point.messages[i])
        for point in stated.points
        for i, chip in enumerate(stated.chips)
        if point.status[i] > Status.OK
    ]
    for chip, point, message in failures[:_LISTED]:
        where = f"chip {chip}" + (f", {point.title}" if point.title else "")
        rows.append(_row(where, "", message))
    if len(failures) > _LISTED:
        rows.append(_row(f"{len(failures) - _LISTED} more", "", "see message in the record"))
    total = len(failures)
    text = (
        "Every chip came to an end: none failed, none is left out."
        if total == 0 and not counts[Status.PENDING]
        else f"{total} failed. Failed chips are part of every yield and quantile above."
    )
    return _Section("status", "How the runs ended", text, body=f"<table>{''.join(rows)}</table>")


def _row(head: str, number: int | str, text: str) -> str:
    return (
        f'<tr><th>{escape(head)}</th><td class="number">{escape(str(number))}</td>'
        f"<td>{escape(text)}</td></tr>"
    )


def _provenance_section(stated: Numbers) -> _Section:
    design, attributes = stated.design, stated.attributes
    tolerances = attributes.get("tolerances") or {}
    rows = {
        "design": f"{design.name}, {len(design.layers)} layers on {len(design.tiles)} tiles of at "
        f"most {design.tile.wordlines} × {design.tile.bitlines} lines",
        "design hash": attributes.get("design_hash"),
        "input hash": attributes.get("input_hash"),
        "seed": attributes.get("seed"),
        "engine": attributes.get("engine"),
        "tolerances": _pairs(tolerances) or "none: solved exactly",
        **_technology_rows(stated),
        "simulation": f"{stated.runtime:.1f} s of {attributes.get('engine')}, all chips together",
        "versions": _pairs(attributes.get("versions") or {}),
    }
    cells = "".join(
        f"<tr><th>{escape(key)}</th><td><code>{escape(str(value))}</code></td></tr>"
        for key, value in rows.items()
    )
    return _Section(
        "provenance",
        "Where the numbers come from",
        "The same design, inputs and seed give the same chips on any machine.",
        body=f"<table>{cells}</table>",
    )


def _technology_rows(stated: Numbers) -> dict[str, str]:
    """Keys in force by the record that they are in, then the records left at their defaults."""
    records = switched_on(stated.design.technology)
    rows = {record.replace("periphery.", ""): keys for record, keys in records.items() if keys}
    still = [record for record, keys in records.items() if not keys and record != "periphery"]
    if still:
        rows["off or ideal"] = ", ".join(name.replace("periphery.", "") for name in still)
    technology = stated.design.technology
    rows["technology"] = f"{technology.name} with cell {technology.cell.name}: {rows['technology']}"
    return {**rows, "source": technology.source} if technology.source else rows


def _pairs(data: Any) -> str:
    if not isinstance(data, dict):
        return str(data)
    return ", ".join(f"{key} {value}" for key, value in data.items())


def _headlines(
    stated: Numbers, evidence: Evidence | None, spent: tuple[Costs, ...]
) -> list[tuple[str, str, str, str]]:
    """Kind, figure, what it is, and what to compare it with."""
    point = stated.points[0]
    what = LABELS[stated.kind]
    worst = stated.worst(point)
    at = f" at {point.title}" if point.title else ""
    found = [
        (
            "",
            percent(point.median.estimate),
            f"median {what}{at}",
            f"ideal network {percent(stated.ideal)}",
        ),
        (
            "",
            percent(point.passed.estimate, 0),
            "yield",
            f"chips at {percent(stated.threshold)} or better; 95 % interval "
            f"{percent(point.passed.low, 0)} to {percent(point.passed.high, 0)}",
        ),
    ]
    if worst is not None:
        failed = f", {point.failed} failed" if point.failed else ", none failed"
        found.append(
            (
                "warm",
                percent(point.score[worst]),
                f"worst chip, number {stated.chips[worst]}",
                f"of {len(stated.chips)} chips{failed}",
            )
        )
    if spent:
        found += headlines(spent[0])
    if stated.agreement is not None:
        compared = headline(stated.agreement, str(stated.attributes.get("engine")))
        found += [compared] if compared is not None else []
    if evidence is not None and evidence.success:
        found.append(
            (
                "cool",
                f"{evidence.gain:.1f}×",
                f"smaller error from {evidence.probes} probes",
                f"{percent(evidence.error(evidence.before), 2)} of full scale before, "
                f"{percent(evidence.error(evidence.after), 2)} after, on an unseen chip",
            )
        )
    return found


def _page(
    stated: Numbers,
    sections: list[_Section],
    evidence: Evidence | None,
    spent: tuple[Costs, ...],
) -> str:
    css = (files("spicenn.report") / "page.css").read_text("utf-8")
    attributes = stated.attributes
    name = escape(stated.design.name)
    chips, samples = len(stated.chips), len(stated.ideal_outputs)
    trials = stated.outputs.shape[1]
    reads = f", {trials} noisy reads each" if trials > 1 else ""
    versions = attributes.get("versions")
    engine = str(attributes.get("engine"))
    if isinstance(versions, dict) and engine in versions:
        engine += f" {versions[engine]}"
    lead = escape(
        f"{chips} manufactured chips in {stated.design.technology.name}, {samples} inputs{reads}, "
        f"every layer solved by {engine}."
    )
    figures = "".join(
        f'<div class="figure {kind}"><b>{escape(figure)}</b><span>{escape(title)}</span>'
        f"<small>{escape(note)}</small></div>"
        for kind, figure, title, note in _headlines(stated, evidence, spent)
    )
    body = "".join(
        f'<section id="{s.name}"><h2>{escape(s.title)}</h2><p>{s.text}</p>'
        f"{to_svg(s.figure, s.name) if s.figure is not None else ''}{s.body}</section>"
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; img-src data:">
<title>{name}: {chips} chips</title>
<style>
{css}</style>
</head>
<body>
<main>
<header>
<p class="eyebrow">spicenn · Monte Carlo study</p>
<h1>{name} on {chips} analog chips</h1>
<p class="lead">{lead}</p>
</header>
<div class="figures">{figures}</div>
{body}
<footer>Written by spicenn {escape(__version__)}.</footer>
</main>
</body>
</html>
"""
