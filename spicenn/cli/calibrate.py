"""``spicenn calibrate``: make a population surrogate one chip's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.codes import INCOMPLETE
from spicenn.cli.types import COUNT, FILE

if TYPE_CHECKING:
    from spicenn.surrogate.family import Family

_EPILOG = """\b
Examples
  spicenn calibrate surrogate.pt --probes x.npy --outputs measured.npy -o chip.pt
  spicenn calibrate surrogate.pt --like x_test.npy --count 32 --chip 1000 --seed 2024 -o chip.pt

\b
Exits with 3 where the calibration is refused; what is written then is the population's model.
"""


@click.command(epilog=_EPILOG)
@click.argument("surrogate", type=FILE, metavar="SURROGATE")
@click.option("--probes", type=FILE, help="Inputs that the chip was probed with (.npy, .npz).")
@click.option("--outputs", type=FILE, help="What the chip gave for them (.npy).")
@click.option("--like", type=FILE, help="Choose the probes among inputs like these instead.")
@click.option("--count", type=COUNT, default=32, show_default=True, help="How many to choose.")
@click.option("--chip", type=click.IntRange(min=0), help="Measure on this simulated chip instead.")
@options.seed(required=False)
@options.engine
@options.trials
@options.timeout
@click.option("-o", "--output", type=FILE, required=True, help="Where the chip's model goes.")
@options.allow_include
@options.trust_model
@options.as_json
def calibrate(
    surrogate: Path,
    probes: Path | None,
    outputs: Path | None,
    like: Path | None,
    count: int,
    chip: int | None,
    seed: int | None,
    engine: str,
    trials: int,
    timeout: float,
    output: Path,
    allow_include: tuple[Path, ...],
    trust_model: bool,
    as_json: bool,
) -> int:
    """Calibrate SURROGATE, of any family, to one chip from a few probes.

    The probes' outputs are measured ones (--outputs), or come from a simulated
    chip (--chip and --seed).
    """
    if (probes is None) == (like is None):
        raise click.UsageError("give the probes (--probes) or inputs to choose them from (--like)")
    if (outputs is None) == (chip is None):
        raise click.UsageError("give measured --outputs, or --chip and --seed to simulate them")
    if chip is not None and seed is None:
        raise click.UsageError("--chip needs --seed: both together fix a chip")
    if outputs is not None and like is not None:
        raise click.UsageError("measured --outputs belong to --probes, not to --like")
    from spicenn.cli.files import load_array, load_inputs, make_parent
    from spicenn.surrogate import calibrate as calibrate_surrogate
    from spicenn.surrogate.latent_files import load

    loaded = load(surrogate, allow_include=allow_include, trust_model=trust_model)
    names = tuple(port.name for port in loaded.design.program.inputs)
    if probes is not None:
        x = load_inputs(probes, names)
    else:
        assert like is not None
        x = loaded.design.probe_vectors(load_inputs(like, names), count=count, seed=seed or 0)
    if outputs is not None:
        y = load_array(outputs)
    else:
        assert chip is not None
        assert seed is not None
        y = _measured(loaded, x, chip, seed, engine, trials, timeout)
    result = calibrate_surrogate(loaded, x, y)
    make_parent(output)
    result.module.save(output)
    _print(result, output, as_json)
    return 0 if result.success else INCOMPLETE


def _measured(
    surrogate: Family,
    x: Any,
    chip: int,
    seed: int,
    engine: str,
    trials: int,
    timeout: float,
) -> Any:
    made = surrogate.design.sample(chip, seed)
    return made.run(x, engine=engine, trials=trials, timeout=timeout)


def _print(result: Any, output: Path, as_json: bool) -> None:
    from spicenn.cli.text import echo, echo_json, finite

    if as_json:
        echo_json(
            {
                "module": str(output),
                "success": bool(result.success),
                "reason": result.reason,
                "residual": finite(result.residual),
                "heldout": finite(result.heldout),
                "population": finite(result.population),
            }
        )
        return
    echo(f"success   {'yes' if result.success else 'no'}: {result.reason}")
    echo(f"residual  {result.residual:.4g} rms on the probes themselves")
    echo(f"held out  {result.heldout:.4g} rms, the population's surrogate {result.population:.4g}")
    echo(f"module    {output}")
