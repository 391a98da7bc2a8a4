"""What an event-driven model of one chip's layer is made of, and what its circuit says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.compiler.layer import Layer
from spicenn.compiler.spiking import SpikingLayer, spiking_layer
from spicenn.errors import InputError
from spicenn.kirchhoff.currents import effective_matrix
from spicenn.periphery.lif import Lif
from spicenn.technology.variation import manufactured_moments

Array = NDArray[np.float64]

# A comparator's pair, its mirror and its output node: what the membrane's excess over the
# threshold has to add up to before the output goes, over c_node volts per siemens.
_PATH = 0.24
# The reset's current source has a finite output resistance: lambda of 0.05/V and 1.3 V across.
_CURRENT = 1 / (1 + 0.05 * 1.3)
# That of the follower at the floor, 1.6 V across.
_LENGTHENED = 1 + 0.05 * 1.6
# The comparator's resting output lies a pair's gate-source voltage, at half the tail current,
# below the membrane; where it reaches the inverter's threshold voltage, the inverter begins to
# conduct. Its own drop across the pair brings that on a little earlier [V].
_NEAR_DROP, _NEAR_GAIN = 0.01, 1.4
# A spike's share of the supply's charge on the capacitors of reset and output.
_SPIKE_SWING = 2.0


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerModel:
    """One layer of one chip: closed forms between events, and their constants.

    Parameters
    ----------
    weights : (axon, neuron), slope of a membrane per volt on an axon [1/s].
    drift : (neuron,), slope without any input [V/s].
    tau, threshold, refractory : (neuron,), of the membrane's leak [s], where its comparator
        changes sides [V], and how long it is held after a spike [s].
    rest, floor : of the membranes [V].
    catch, grip : (neuron,), of the transistors that hold a membrane after a spike and at
        the floor: it goes back at catch u², u its distance beyond where they let go [1/(V s)].
    fall : (neuron,), speed at which a reset lets go [V/s].
    excess : coefficients, ascending, of the logarithm of the time integral of what is over
        the threshold at which the output goes [V s] by that of the slope at the threshold,
        in units of ``slope``.
    slope : that a membrane typically passes the threshold with [V/s].
    lag : from the middle of a drive's slope to that of a membrane's [s].
    spike_width, supply : of an output pulse [s], [V].
    power_rest : without any event [W].
    power_axon : (axon,), per volt on it [W/V].
    power_slope : (neuron,), per magnitude of its membrane's slope without leak [J/V].
    energy_spike : of a spike at no delay [J], and per delay of its comparator [W].
    energy_catch : (neuron,), per volt that it is held up against at the floor [J/V].
    near, power_near : how far below its threshold a membrane is when its comparator's next
        stage begins to conduct [V], and what that takes [W/V²], by a square law.
    """

    weights: Array
    drift: Array
    tau: Array
    threshold: Array
    refractory: Array
    rest: float
    floor: float
    catch: Array
    grip: Array
    fall: Array
    excess: Array
    slope: float
    lag: float
    spike_width: float
    supply: float
    power_rest: float
    power_axon: Array
    power_slope: Array
    energy_spike: Array
    energy_catch: Array
    near: float
    power_near: float

    def __post_init__(self) -> None:
        if self.weights.ndim != 2:
            raise InputError(f"weights of shape {self.weights.shape}", where="LayerModel")
        axons, neurons = self.weights.shape
        sizes = {"power_axon": axons, "energy_spike": 2}
        for name in ("drift", "tau", "threshold", "refractory", "catch", "grip", "fall",
                     "power_slope",
                     "energy_catch"):  # fmt: skip
            sizes[name] = neurons
        for name, size in sizes.items():
            if getattr(self, name).shape != (size,):
                raise InputError(
                    f"{name} has shape {getattr(self, name).shape}, expected ({size},)",
                    where="LayerModel",
                )
        for field in fields(self):
            if not np.isfinite(getattr(self, field.name)).all():
                raise InputError(f"{field.name} is not finite", where="LayerModel")
        for name in (
            "tau",
            "refractory",
            "catch",
            "grip",
            "fall",
            "slope",
            "spike_width",
            "supply",
        ):
            if not np.all(np.asarray(getattr(self, name)) > 0):
                raise InputError(f"{name} is not above 0", where="LayerModel")
        if not self.floor < self.rest < self.threshold.min():
            raise InputError("floor, rest and threshold are not in order", where="LayerModel")

    @property
    def axons(self) -> int:
        return int(self.weights.shape[0])

    @property
    def neurons(self) -> int:
        return int(self.weights.shape[1])

    @cached_property
    def window(self) -> Array:
        """(neuron,), how long a reset that has let go still catches a membrane on its way [s]."""
        window: Array = (self.rest - self.floor) / self.fall
        return window

    def with_(self, **changes: Any) -> LayerModel:
        """The same with some values changed."""
        return replace(self, **changes)


def to_plain(model: LayerModel) -> dict[str, Any]:
    """A model as lists and numbers, for JSON."""
    return {field.name: np.asarray(getattr(model, field.name)).tolist() for field in fields(model)}


def from_plain(values: Mapping[str, Any]) -> LayerModel:
    """A model from ``to_plain``. Raises InputError where it is not one."""
    names = {field.name for field in fields(LayerModel)}
    if set(values) != names:
        wrong = sorted(set(values) ^ names)
        raise InputError(f"{', '.join(wrong)}: missing or unknown", where="LayerModel")
    arrays = {name: np.array(value, dtype=np.float64) for name, value in values.items()}
    parts: dict[str, Any] = {n: float(a) if a.ndim == 0 else a for n, a in arrays.items()}
    return LayerModel(**parts)


def nominal_layer(design: Design, layer: Layer, neuron: Lif, *, width: float) -> SpikingLayer:
    """What every chip's layer was meant to be: cells at their means, neurons all the same.

    Parameters and errors are those of ``compiler.spiking.spiking_layer``.
    """
    mean = {
        tile.name: manufactured_moments(design.technology, tile.g_target, tile.site)[0]
        for tile in design.tiles
    }
    chip = replace(design.sample(chip=0, seed=0), measured=mean)
    made = spiking_layer(chip, layer, neuron, width=width)
    stage = replace(made.stage, tia_offset=np.zeros_like(made.stage.tia_offset))
    return replace(made, stage=stage)


def circuit_model(layer: SpikingLayer) -> LayerModel:
    """The model that a layer's own devices make, nothing of it fitted.

    Weights are those of its effective matrix (wires included), time constants and levels
    those of ``netlists/lif.lib``, the comparator's delay that of a pair of transistors
    charging one node: gm = sqrt(β I).

    Raises InputError where neurons do not share their levels.
    """
    stage, neurons = layer.stage, layer.neurons
    spec = layer.nominal
    for key in ("v_rest", "v_floor", "supply"):
        if len({getattr(neuron, key) for neuron in neurons}) != 1:
            raise InputError(f"neurons differ in {key}", where=f"stage {stage.name}")

    def each(key: str) -> Array:
        return np.array([getattr(neuron, key) for neuron in neurons], dtype=np.float64)

    plus, minus, total = _conductances(layer)
    capacitance = each("c_mem") + each("c_feedback")
    gain = each("gm") / capacitance
    tia, driver = layer.periphery.tia, layer.periphery.driver
    supplies = driver.supply * total + tia.supply * 2.0 * plus.sum(axis=1)
    pair = np.sqrt(each("beta") * each("bias_current"))
    excess = _PATH * float((each("c_node") / pair * (spec.supply - spec.v_th)).mean())
    spike_charge = (spec.c_ref + spec.c_feedback + 3 * spec.c_node) * _SPIKE_SWING
    rest = spec.supply * each("bias_current").sum()
    rest += driver.supply * driver.bias_current * stage.wordlines
    rest += tia.supply * tia.bias_current * 2 * stage.outputs
    offset = stage.r_feedback * (stage.tia_offset[1] - stage.tia_offset[0]) / stage.r_first
    # From where the inverter conducts to the threshold.
    near = spec.v_th - 2 * spec.threshold - (spec.bias_current / spec.beta) ** 0.5 + _NEAR_DROP
    return LayerModel(
        weights=stage.gain * stage.r_feedback * (plus - minus) * gain,
        drift=offset * gain,
        tau=each("r_leak") * capacitance,
        threshold=each("v_th") + each("offset"),
        refractory=_CURRENT * np.array([neuron.refractory for neuron in neurons]),
        rest=spec.v_rest,
        floor=spec.v_floor,
        catch=10 * each("beta") / (2 * capacitance),
        grip=_LENGTHENED * 10 * each("beta") / (2 * capacitance),
        fall=each("i_ref") / each("c_ref") / _CURRENT,
        excess=np.array([np.log(excess)]),
        slope=spec.swing / layer.width,
        lag=0.0,
        spike_width=1e-9,
        supply=spec.supply,
        power_rest=float(rest),
        power_axon=stage.gain * supplies,
        power_slope=capacitance * spec.supply + tia.supply / (stage.r_feedback * gain),
        energy_spike=np.array([spec.supply * spike_charge, spec.supply * spec.bias_current]),
        energy_catch=capacitance * spec.supply,
        near=max(near, _NEAR_DROP),
        power_near=spec.supply * _NEAR_GAIN * 10 * spec.beta / 2,
    )


def _conductances(layer: SpikingLayer) -> tuple[Array, Array, Array]:
    """From a volt on an input to the currents of plus and minus lines, (input, output), and
    to what its driver gives, (input,) [S]. What a wire takes of a driver's current is small.
    """
    stage = layer.stage
    lines = np.zeros((stage.wordlines, 2 * stage.outputs))
    for block in stage.blocks:
        r_wordline, r_bitline = block.crossbar.segments()
        effective = effective_matrix(block.cells.g, r_wordline=r_wordline, r_bitline=r_bitline)
        rows = slice(block.row, block.row + block.crossbar.wordlines)
        lines[rows, block.line : block.line + block.crossbar.bitlines] += effective
    lines = lines[: stage.inputs]
    return lines[:, 0::2], lines[:, 1::2], lines.sum(axis=1)
