"""A chip's layer as a crossbar with spiking neurons behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from spicenn.circuit.stepped import STEPPED
from spicenn.circuit.tolerances import Tolerances
from spicenn.compiler.analog import stage_of
from spicenn.compiler.layer import Layer
from spicenn.engines.analog.network import Stage
from spicenn.engines.analog.spiking import render_spiking
from spicenn.errors import CompileError, InputError
from spicenn.periphery.lif import Lif
from spicenn.seeds import Purpose, generator
from spicenn.technology import Periphery

if TYPE_CHECKING:
    from spicenn.compiler.chip import Chip


@dataclass(frozen=True, kw_only=True)
class LifSpread:
    """How neurons differ from each other, standard deviations, drawn per neuron of a chip.

    offset : of the comparator [V].
    gm, c_mem, r_leak, i_ref : relative, normal in the logarithm.
    """

    offset: float = 0.0
    gm: float = 0.0
    c_mem: float = 0.0
    r_leak: float = 0.0
    i_ref: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < math.inf:
                raise InputError(
                    f"{field.name} = {getattr(self, field.name)!r} is no deviation",
                    where="LifSpread",
                )


@dataclass(frozen=True, eq=False)
class SpikingLayer:
    """What is needed to write a layer's circuit, and to drive it.

    stage : crossbars and amplifiers.
    neurons : one per output, as manufactured.
    nominal : what all of them were meant to be; its gm makes a spike through a weight w
        lift a membrane by w of the way from rest to threshold.
    amplitude, width : of an input spike's pulse on a wordline [V], [s].
    periphery, temperature : of the technology.
    """

    stage: Stage
    neurons: tuple[Lif, ...]
    nominal: Lif
    amplitude: float
    width: float
    periphery: Periphery
    temperature: float

    @property
    def inputs(self) -> int:
        return self.stage.inputs

    @property
    def outputs(self) -> int:
        return self.stage.outputs

    def netlist(self, *, tolerances: Tolerances = STEPPED, header: Sequence[str] = ()) -> str:
        """The circuit; ``engines.analog.spiking`` says what its nodes are called."""
        return render_spiking(
            self.stage,
            self.neurons,
            self.periphery,
            name=self.stage.name,
            temperature=self.temperature,
            tolerances=tolerances,
            header=header,
        )


def spiking_layer(
    chip: Chip,
    layer: Layer,
    neuron: Lif,
    *,
    width: float,
    spread: LifSpread | None = None,
) -> SpikingLayer:
    """One layer of a chip with a neuron at every output.

    Parameters
    ----------
    neuron : its gm is set here.
    width : of an input spike's pulse [s].
    spread : of the neurons, none if None.

    Raises CompileError for a layer with a bias, which no spike drives, InputError for a
    width that is not positive.
    """
    if layer.bias is not None:
        raise CompileError(
            "has a bias, which no spike drives",
            where=f"layer {layer.name!r}",
            remedy="use bias=False; a threshold of its own stands for it",
        )
    if not 0 < width < math.inf:
        raise InputError(f"width = {width!r} s is not positive")
    technology = chip.design.technology
    stage, unit = stage_of(chip, layer, None, 1.0)
    # unit is the amplifier's output for an input of 1, driven at v_read / input_scale.
    volts = unit * layer.input_scale
    capacitance = neuron.c_mem + neuron.c_feedback
    nominal = replace(neuron, gm=neuron.swing * capacitance / (volts * width))
    return SpikingLayer(
        stage=stage,
        neurons=_manufactured(chip, layer, nominal, spread or LifSpread()),
        nominal=nominal,
        amplitude=technology.v_read,
        width=width,
        periphery=technology.periphery,
        temperature=technology.temperature,
    )


def _manufactured(chip: Chip, layer: Layer, nominal: Lif, spread: LifSpread) -> tuple[Lif, ...]:
    drawn = {}
    for number, field in enumerate(fields(spread)):
        # A generator of its own each: one more spread changes no other draw.
        rng = generator(
            chip.seed, Purpose.SPIKING_NEURON, chip=chip.index, layer=layer.index, row=number
        )
        drawn[field.name] = getattr(spread, field.name) * rng.standard_normal(layer.outputs)
    return tuple(
        replace(
            nominal,
            offset=nominal.offset + float(drawn["offset"][k]),
            **{
                key: getattr(nominal, key) * math.exp(drawn[key][k])
                for key in ("gm", "c_mem", "r_leak", "i_ref")
            },
        )
        for k in range(layer.outputs)
    )
