"""``spicenn compile``: from a model to a design, and to one chip's netlists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from spicenn.cli import options
from spicenn.cli.types import COUNT, FILE, TECHNOLOGY, TILE

if TYPE_CHECKING:
    from spicenn.compiler import Design, Tile
    from spicenn.technology import Technology

_EPILOG = """\b
Examples
  spicenn compile models:build --trust-model --example x.npy -o net.spicenn
  spicenn compile net.pt2 --trust-model --example x.npy --calibration x_train.npy \\
      --technology rram-1r --tile 64x64 --adc-bits 8 -o net.spicenn
  spicenn compile net.pt2 --trust-model --example x.npy --technology mine.toml \\
      --allow-include kit/ -o net.spicenn
  spicenn compile net.spicenn --netlists build/ --chip 7 --seed 2024
"""


@click.command("compile", epilog=_EPILOG)
@click.argument("model", metavar="MODEL")
@options.trust_model
@options.allow_include
@click.option("--example", type=FILE, help="A few inputs (.npy, .npz), sample axis first.")
@click.option(
    "--calibration",
    type=FILE,
    help="Inputs that set the ranges of every layer; the example if left out.",
)
@click.option(
    "--technology",
    type=TECHNOLOGY,
    default="rram-1r",
    show_default=True,
    help="What the chip is made of: a preset or a TOML file.",
)
@click.option(
    "--tile", type=TILE, default="128x128", show_default=True, help="Lines of one crossbar."
)
@click.option(
    "--bias",
    type=click.Choice(["row", "digital"]),
    default="row",
    show_default=True,
    help="Bias as wordlines at full scale, or added after conversion.",
)
@click.option("--slices", type=COUNT, default=1, show_default=True, help="Cells per weight part.")
@click.option("--cell-bits", type=COUNT, help="Levels of one cell as bits; analog if left out.")
@click.option("--input-bits", type=COUNT, help="Bits of an input, sign included; analog if not.")
@click.option("--dac-bits", type=COUNT, help="Bits sent in one pulse; all of them if left out.")
@click.option("--adc-bits", type=COUNT, help="Bits of each tile's converter; exact if left out.")
@click.option("-o", "--output", type=FILE, help="Where the design goes, e.g. net.spicenn.")
@click.option("--netlists", type=FILE, help="Folder for the netlists of one chip.")
@click.option("--chip", type=click.IntRange(min=0), help="Index of that chip.")
@options.seed(required=False)
@options.as_json
def compile_(
    model: str,
    trust_model: bool,
    allow_include: tuple[Path, ...],
    example: Path | None,
    calibration: Path | None,
    technology: Technology,
    tile: Tile,
    bias: Literal["row", "digital"],
    slices: int,
    cell_bits: int | None,
    input_bits: int | None,
    dac_bits: int | None,
    adc_bits: int | None,
    output: Path | None,
    netlists: Path | None,
    chip: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Map a model to crossbar tiles.

    MODEL is a .pt2 file of torch.export, or module:factory, called without
    arguments in the current folder. Both can execute code and so need
    --trust-model. A saved design can be given too, to write netlists from it.
    """
    from spicenn.cli.files import is_design, make_parent

    if output is None and netlists is None:
        raise click.UsageError("say where the result goes: -o DESIGN, --netlists FOLDER or both")
    if netlists is not None and (chip is None or seed is None):
        raise click.UsageError("--netlists needs --chip and --seed: which chip to write")
    if netlists is None and (chip is not None or seed is not None):
        raise click.UsageError("--chip and --seed are for --netlists")
    if is_design(model):
        if example is not None or calibration is not None or output is not None:
            raise click.UsageError(f"{model} is taken for a saved design; only --netlists applies")
        from spicenn.compiler import Design

        design = Design.load(model, allow_include=allow_include, trust_model=trust_model)
    else:
        from spicenn.compiler import Mapping

        mapping = Mapping(
            bias=bias,
            slices=slices,
            cell_bits=cell_bits,
            input_bits=input_bits,
            dac_bits=dac_bits,
            adc_bits=adc_bits,
        )
        design = _compiled(model, trust_model, example, calibration, technology, tile, mapping)
    if output is not None:
        make_parent(output)
        design.save(output)
    manifest = None
    if netlists is not None:
        assert chip is not None
        assert seed is not None
        manifest = design.sample(chip, seed).to_spice(netlists)
    _print(design, output, manifest, as_json)


def _compiled(
    model: str,
    trust_model: bool,
    example: Path | None,
    calibration: Path | None,
    technology: Technology,
    tile: Tile,
    mapping: Any,
) -> Design:
    if not trust_model:
        raise click.UsageError(
            f"loading {model} can execute code that it holds; "
            "if you trust it, say so with --trust-model"
        )
    if example is None:
        raise click.UsageError("compiling needs --example: a few inputs as .npy or .npz")
    from spicenn.cli.files import load_inputs, load_model
    from spicenn.compiler import compile

    x = load_inputs(example)
    x_cal = None if calibration is None else load_inputs(calibration)
    design = compile(
        load_model(model),
        x,
        technology=technology,
        tile=tile,
        mapping=mapping,
        calibration=x_cal,
    )
    # An exported program has lost the name of its class.
    return replace(design, name=Path(model).stem) if model.endswith(".pt2") else design


def _print(design: Design, output: Path | None, manifest: Path | None, as_json: bool) -> None:
    from spicenn.cli.text import echo, echo_json

    if as_json:
        tiles = design.tiles
        echo_json(
            {
                "design": None if output is None else str(output),
                "name": design.name,
                "hash": design.hash,
                "technology": design.technology.name,
                "tile": [design.tile.wordlines, design.tile.bitlines],
                "layers": [
                    {
                        "name": layer.name,
                        "tiles": sum(tile.layer is layer for tile in tiles),
                        "cells": sum(t.g_target.size for t in tiles if t.layer is layer),
                    }
                    for layer in design.layers
                ],
                "manifest": None if manifest is None else str(manifest),
            }
        )
        return
    echo(str(design))
    if output is not None:
        echo(f"design    {output}")
    if manifest is not None:
        echo(f"netlists  {manifest}")
