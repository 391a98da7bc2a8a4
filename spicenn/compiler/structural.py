"""What a design's chips share and how they differ: one effective weight per row and output.

A tile of linear cells is a linear map whatever its wires, so its chip is known when
the effective matrix is: mean and spread of that matrix over chips follow from the
technology. ``forward`` is the design's own program with these matrices as tiles.
Other cells count with their small-signal conductance at 0 V.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from spicenn.circuit import Crossbar
from spicenn.compiler.convolution import fold
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.product import Noise, linear_product, merged, tiled_product
from spicenn.compiler.program import execute
from spicenn.compiler.reading import thermal_sigma
from spicenn.compiler.readout import beyond_matrices
from spicenn.compiler.structure import (
    ADC_GAIN,
    DAC_GAIN,
    DAC_OFFSET,
    WIRES,
    Parameters,
    column,
    realise,
    row,
)
from spicenn.engines.laws import is_linear, known_law
from spicenn.errors import InputError, SpicennWarning
from spicenn.kirchhoff.currents import effective_matrix
from spicenn.kirchhoff.laws import small_signal, with_parameters
from spicenn.technology import Technology
from spicenn.technology.noise import (
    flicker_variance,
    rtn_static_variance,
    rtn_variance,
    shot_density,
)
from spicenn.technology.variation import manufactured_moments, parameters_at

if TYPE_CHECKING:
    from spicenn.compiler.design import Design


# Relative step of a derivative by a conductance, and by the resistance of wires.
_STEP, _WIRE_STEP = 1e-4, 1e-2
# Equally probable values of a standard normal variable, and scaled to be one of variance 1.
_QUANTILES = np.array([NormalDist().inv_cdf((k + 0.5) / 24) for k in range(24)])
_NORMAL = _QUANTILES / _QUANTILES.std()


class TileMoments(NamedTuple):
    """One tile's differential effective matrix over all chips, over g_max - g_min.

    tile : where it is.
    mean, spread : (wordline, output · slice) float64, mean and standard deviation.
    read : (wordline, output · slice), variance of one read per squared drive fraction.
    thermal : (output · slice,), variance of one read without drive.
    wires : (wordline, output · slice), derivative of ``mean`` by the logarithm of its wires'
        resistance; None where that was not asked for.
    """

    tile: PlacedTile
    mean: torch.Tensor
    spread: torch.Tensor
    read: torch.Tensor
    thermal: torch.Tensor
    wires: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Use:
    """One pass of rows through a layer, kept for its derivatives.

    layer : whose tiles.
    shift : zeros in the graph of the outputs, added to the layer's result
        (sample, position, group · output).
    drive : (sample, position, group, row) in units of v_read; the pulses' sum.
    power : the same shape; squares of the pulses, weighted, summed.
    gain : Σ over pulses of their squared weights.
    pulses : Σ over pulses of their weights.
    """

    layer: Layer
    shift: torch.Tensor
    drive: torch.Tensor
    power: torch.Tensor
    gain: float
    pulses: float


def tile_moments(design: Design, *, wires: bool = False) -> tuple[TileMoments, ...]:
    """Mean and spread of every tile's effective matrix, from the technology alone.

    The mean is the effective matrix of the mean conductances. A cell's spread is
    attenuated by its wires as its mean is; what a cell does to its neighbours through
    the wires, a second-order effect, is left to the fit. So is what amplifiers that are not
    ideal and converters of unequal steps do, and what cells that are not linear do beyond
    their conductance at 0 V, each with a SpicennWarning. Gains and offsets of converters are
    beside the matrices, see ``structure``.

    Parameters
    ----------
    wires : compute the derivatives by the wires' resistance too, two further effective
        matrices a tile. Raises InputError for cells that are not linear, or ideal wires.
    """
    technology = design.technology
    beyond = list(beyond_matrices(design))
    linear = is_linear(technology.cell)
    if wires:
        _require_wires(technology)
    if not linear:
        beyond.append(f"what is nonlinear in the cell {technology.cell.name!r}")
    if beyond:
        warnings.warn(
            f"{', '.join(beyond)}: not part of effective matrices, left to the fit",
            SpicennWarning,
            stacklevel=2,
        )
    span = technology.g_max - technology.g_min
    result = []
    for tile in design.tiles:
        g, sigma = manufactured_moments(technology, tile.g_target, tile.site)
        mean, spread = _small_signal(technology, tile.crossbar, g, sigma)
        r_wordline, r_bitline = tile.crossbar.segments()
        effective = effective_matrix(mean, r_wordline=r_wordline, r_bitline=r_bitline)
        spread = _attenuated(spread, effective, mean)
        # What fluctuates is what ``reading`` takes a cell to conduct.
        seen = mean if linear else g
        rms = np.hypot(seen, spread if linear else _attenuated(sigma, effective, mean))
        read, thermal = _read_variances(technology, tile.crossbar, g, seen, rms)
        # A trap that does not switch while a chip is observed belongs to the chip.
        frozen = technology.noise.rtn_share * rtn_static_variance(technology)
        spread = np.sqrt(np.square(spread) + frozen * np.square(rms))
        result.append(
            TileMoments(
                tile,
                _tensor(_plus(effective) - _minus(effective)) / span,
                _tensor(np.hypot(_plus(spread), _minus(spread))) / span,
                _tensor(_plus(read) + _minus(read)) / span**2,
                _tensor(_plus(thermal) + _minus(thermal)) / span**2,
                _by_wires(tile.crossbar, mean) / span if wires else None,
            )
        )
    return tuple(result)


def with_wires(moments: Sequence[TileMoments], parameters: Parameters) -> Parameters:
    """A chip whose wires are in its tiles' effective matrices, and no number of their own.

    The drop along wires, and with it what a matrix lacks, goes with their resistance as long
    as it is small: of λ a matrix W becomes W + (exp λ - 1) D, of first order in the change of
    the resistance, with D the derivative at the mean conductances, ``TileMoments.wires``.
    Large drops grow by less than that, and λ is found as what it does: nearer to zero.

    Returns
    -------
    ``parameters`` itself where the chip has no λ.
    """
    if WIRES not in parameters:
        return parameters
    change = torch.expm1(parameters[WIRES])
    result = {name: value for name, value in parameters.items() if name != WIRES}
    for moment in moments:
        name = moment.tile.name
        result[name] = result[name] + change * wires_of(moment)
    return result


def wires_of(moment: TileMoments) -> torch.Tensor:
    """``TileMoments.wires``. Raises InputError where it was not computed."""
    if moment.wires is None:
        raise InputError(
            f"tile {moment.tile.name} has no derivative by its wires",
            remedy="use tile_moments(design, wires=True)",
        )
    return moment.wires


def forward(
    design: Design,
    moments: Sequence[TileMoments],
    parameters: Parameters,
    inputs: Sequence[torch.Tensor],
    *,
    noise: np.random.Generator | None = None,
    uses: list[Use] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Run the design's program with effective matrices as tiles.

    Values are what the converters give; gradients take quantisation as straight
    through and stop where an input saturates.

    Parameters
    ----------
    parameters : of the chip: per tile name (wordline, output · slice) over g_max - g_min, and
        what its converters and wires do, as ``structure`` has it.
    inputs : one tensor per model input, sample axis first.
    noise : draws read and thermal noise from it; None is noise-free.
    uses : gets every use of a layer, in order; its shifts are in the outputs' graph.
    """

    tiles = {
        layer.name: [moment.tile for moment in moments if moment.tile.layer is layer]
        for layer in design.layers
    }
    read = None if noise is None else _noise(moments, parameters, noise)
    tiled = with_wires(moments, parameters)
    weights, offsets = realise([moment.tile for moment in moments], tiled)

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = design.layer(name)
        if read is None and uses is None and design.mapping.adc_bits is None:
            whole = merged(design, layer, tiles[name], weights, offsets)
            return linear_product(design, layer, x, *whole)
        result, drives = tiled_product(design, layer, tiles[name], weights, x, read, offsets)
        if uses is not None:
            shape = drives[0].total.shape[:2]
            shift = torch.zeros(*shape, result.shape[-1], dtype=x.dtype)
            shift.requires_grad_()
            result = result + shift.reshape(result.shape)
            uses.append(
                Use(
                    layer,
                    shift,
                    torch.stack([drive.total for drive in drives], dim=2),
                    torch.stack([drive.power for drive in drives], dim=2),
                    float(np.square(drives[0].weight).sum()),
                    float(drives[0].weight.sum()),
                )
            )
        return fold(result, layer)

    constants = {name: torch.as_tensor(array) for name, array in design.constants.items()}
    return execute(design.program, constants, inputs, crossbar)


def _small_signal(
    technology: Technology, crossbar: Crossbar, g: Array, sigma: Array
) -> tuple[Array, Array]:
    """Mean and standard deviation over chips of what cells conduct at 0 V [S].

    To first order in g, by the distribution of every other parameter (a transistor near
    its threshold is not linear in it), of each by itself; g and sigma as they are where no
    law of the cell is known.

    Parameters
    ----------
    g, sigma : (wordline, bitline) [S], see ``manufactured_moments``.
    """
    law = known_law(crossbar.cell, crossbar.name, technology.temperature)
    if law is None:
        return g, sigma

    def conductance(at: Array, **deviations: float) -> Array:
        own = _parameters(technology, at, **deviations)
        return np.asarray(small_signal(with_parameters(law, own), at))

    middle = conductance(g)
    by_g = (conductance((1 + _STEP) * g) - conductance((1 - _STEP) * g)) / (2 * _STEP * g)
    mean, variance = middle.copy(), np.square(by_g * sigma)
    for name in _parameters(technology, g).keys() & {"dvt", "beta"}:
        over = [conductance(g, **{name: z}) for z in _NORMAL]
        mean += np.mean(over, axis=0) - middle
        variance += np.var(over, axis=0)
    return mean, np.sqrt(variance)


def _require_wires(technology: Technology) -> None:
    """Raise InputError where the resistance of wires is no parameter of a chip."""
    if not is_linear(technology.cell):
        raise InputError(
            f"the cell {technology.cell.name!r} is not linear: what its wires do is no matrix",
            remedy="fit with wires=0",
        )
    if not (technology.r_wordline or technology.r_bitline):
        raise InputError(
            "the technology's wires are ideal: no chip's can be so many times as resistive",
            remedy="set r_wordline and r_bitline, or fit with wires=0",
        )


def _by_wires(crossbar: Crossbar, g: Array) -> torch.Tensor:
    """Derivative of a tile's differential matrix by ln(resistance of its wires) [S].

    Of segments alone: what drives and senses lines is not part of the wires.
    """

    def matrix(factor: float) -> Array:
        scaled = replace(
            crossbar,
            r_wordline=factor * crossbar.r_wordline,
            r_bitline=factor * crossbar.r_bitline,
        )
        r_wordline, r_bitline = scaled.segments()
        return np.asarray(effective_matrix(g, r_wordline=r_wordline, r_bitline=r_bitline))

    slope = (matrix(1 + _WIRE_STEP) - matrix(1 - _WIRE_STEP)) / (2 * _WIRE_STEP)
    return _tensor(_plus(slope) - _minus(slope))


def _attenuated(spread: Array, effective: Array, mean: Array) -> Array:
    """What the wires leave of cells' deviations; nothing of a cell that is cut off."""
    return np.divide(spread * effective, mean, out=np.zeros_like(mean), where=mean > 0)


def _parameters(technology: Technology, g: Array, **deviations: float) -> dict[str, Array]:
    """Parameters of cells so many deviations from the nominal chip's, each shaped as g."""
    own = parameters_at(technology, **deviations)
    return {name: np.broadcast_to(value, g.shape) for name, value in own.items()}


def _read_variances(
    technology: Technology, crossbar: Crossbar, g: Array, seen: Array, rms: Array
) -> tuple[Array, Array]:
    """Variance of one read per squared fraction of v_read, and without drive.

    What is common to the reads of a trial (1/f noise, slow traps) has its whole variance
    here, as if reads were independent. The variance of shot noise is linear in |u|, the
    magnitude of the drive fraction; (3 + 15 u²) / 16 is its best even quadratic for a
    uniform u, at most 3/16 of full scale off.

    Parameters
    ----------
    g : (wordline, bitline) [S], mean over chips of what cells are programmed to.
    seen, rms : the same shape, mean and root mean square of what they conduct.

    Returns
    -------
    (wordline, bitline) and (bitline,) [S²], currents over v_read.
    """
    noise = technology.noise
    share = technology.read_noise**2 + flicker_variance(technology)
    share += noise.rtn_share * rtn_variance(technology)
    read = share * np.square(rms)
    thermal = np.square(thermal_sigma(technology, crossbar, g, _parameters(technology, g)))
    thermal = thermal / technology.v_read**2
    # A cell at a time, at full scale.
    shot = shot_density(seen, noise.shot) * technology.bandwidth / technology.v_read
    return read + 15 / 16 * shot, thermal + 3 / 16 * shot.sum(axis=0)


def _noise(
    moments: Sequence[TileMoments], parameters: Parameters, rng: np.random.Generator
) -> Noise:
    """Read and thermal noise of one read, through the chip's converters."""
    known = {moment.tile.name: moment for moment in moments}

    def draw(tile: PlacedTile, fraction: Array) -> Array:
        moment = known[tile.name]
        driven = fraction * (1.0 + _array(row(parameters, DAC_GAIN, tile)))
        driven = driven + _array(row(parameters, DAC_OFFSET, tile))
        variance = np.square(driven) @ moment.read.numpy() + moment.thermal.numpy()
        gain = 1.0 + _array(column(parameters, ADC_GAIN, tile))
        return np.asarray(gain * np.sqrt(variance) * rng.standard_normal(variance.shape))

    return draw


def _array(value: torch.Tensor | float) -> Array:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _plus(g: Array) -> Array:
    return g[..., 0::2]


def _minus(g: Array) -> Array:
    return g[..., 1::2]


def _tensor(array: Array) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64)
