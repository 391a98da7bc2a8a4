"""A network as one netlist, from its input sources to its output nodes.

Nodes of stage s: ``x<s>_<i>`` what is to be driven, ``w<s>_<i>_<k>`` wordline i in the tile
whose first bitline is k, ``l<s>_<k>`` the bitlines, ``z<s>_<k>`` the amplifiers' outputs
before a neuron, and ``x<s+1>_<k>`` the stage's outputs. ``i(va<s>_<i>_<k>)`` is the current
into a wordline. Every stage's drivers, amplifiers and neurons have supplies of their own:
``vdrv<s>``, ``vtia<s>``, ``vpos<s>`` and ``vneg<s>``.
"""

from __future__ import annotations

from collections.abc import Sequence

from spicenn.circuit import Tolerances, cell_nodes, check_netlist, comment_text, render_subcircuit
from spicenn.circuit.render import input_tables, words
from spicenn.engines.analog.network import PERIPHERY, AnalogNetwork, Array, Block, Stage
from spicenn.errors import InputError
from spicenn.periphery.driver import driver_instance
from spicenn.periphery.neuron import neuron_instance
from spicenn.periphery.tia import diff_tia_instance
from spicenn.technology import Periphery
from spicenn.technology.library import subcircuit_text
from spicenn.technology.record import REFERENCE_TEMPERATURE

_ZERO_CELSIUS = 273.15
# Least number of steps of a transient: energies are then exact to a thousandth.
_POINTS = 200
# Charge below which a step's error does not count [C]. At ngspice's own 10 fC no node of
# some femtofarads is watched at all.
_CHARGE = "chgtol=1e-18"


def render_network(
    network: AnalogNetwork,
    v: Array,
    *,
    tolerances: Tolerances | None = None,
    step: tuple[float, float] | None = None,
    header: Sequence[str] = (),
    extra: Sequence[str] = (),
    external: bool = False,
) -> str:
    """Return a netlist that plain ``ngspice -b`` runs.

    Parameters
    ----------
    v : (sample, input) [V] at the first stage's driver inputs. One sample is an operating
        point, several are a sweep of the index source ``vidx``.
    step : (rise time, duration) [s] of a transient instead, in which all inputs and bias
        lines go from 0 V to one sample's voltages.
    header : comment lines, any text.
    extra : further elements, e.g. ``circuit.noise_sources`` between ``block_nodes``.
    external : whether the inputs' sources ``vi_<i>`` are external ones, which start at v.

    Raises InputError for voltages that do not fit, NetlistError for a cell with text that
    must not reach ngspice.
    """
    v = network.inputs(v)
    if (step is not None or external) and len(v) != 1:
        raise InputError("a transient takes one sample", where=network.name)
    body = [
        f"* spicenn network {comment_text(network.name)}",
        *(f"* {comment_text(line)}" for line in header),
        f".options klu {(tolerances or Tolerances()).options()} "
        f"tnom={REFERENCE_TEMPERATURE - _ZERO_CELSIUS!r}{'' if step is None else f' {_CHARGE}'}",
        f".temp {network.temperature - _ZERO_CELSIUS!r}",
        *_subcircuits(network),
        *_inputs(v, step, external),
    ]
    for s, stage in enumerate(network.stages):
        body += _stage(s, stage, network.periphery, step)
    body += extra
    body += _analysis(network, v, step)
    return "\n".join([*body, ".end"]) + "\n"


def block_nodes(s: int, block: Block) -> list[tuple[str, str]]:
    """Wordline and bitline node of every cell of one of stage s's tiles, row by row."""
    ports = {f"in_{i}": f"w{line}" for i, line in enumerate(_wordlines(s, block))}
    ports |= {f"s_{k}": f"l{s}_{block.line + k}" for k in range(block.crossbar.bitlines)}
    inside = f"xt_{block.crossbar.name}."
    return [
        (ports.get(word, inside + word), ports.get(bit, inside + bit))
        for word, bit in cell_nodes(block.crossbar)
    ]


def _wordlines(s: int, block: Block) -> list[str]:
    """What tells the wordlines of one of stage s's tiles from all others."""
    return [f"{s}_{block.row + i}_{block.line}" for i in range(block.crossbar.wordlines)]


def output_vectors(network: AnalogNetwork) -> list[list[str]]:
    """Names of every stage's output voltages."""
    return [
        [f"v({_output(s, k)})" for k in range(stage.outputs)]
        for s, stage in enumerate(network.stages)
    ]


def power_vectors(s: int, stage: Stage) -> dict[str, list[str]]:
    """Names of what a stage's energies are computed from."""
    neurons = [f"i(vpos{s})", f"i(vneg{s})"] if stage.activation else []
    lines = [line for block in stage.blocks for line in _wordlines(s, block)]
    return {
        "wordline": [f"v(w{line})" for line in lines],
        "current": [f"i(va{line})" for line in lines],
        "supply": [f"i(vdrv{s})", f"i(vtia{s})", *neurons],
    }


def _subcircuits(network: AnalogNetwork) -> list[str]:
    names = [*PERIPHERY, *sorted({s.activation for s in network.stages if s.activation})]
    texts = {name: subcircuit_text(name) for name in names}
    for stage in network.stages:
        for block in stage.blocks:
            cell = block.crossbar.cell
            if not cell.is_ohmic:
                check_netlist(cell.netlist, where=f"cell {cell.name}")
                texts[cell.name] = cell.netlist
            texts[block.crossbar.name] = render_subcircuit(
                block.crossbar, block.cells.g, block.cells.parameters
            )
    return [line for text in texts.values() for line in text.splitlines()]


def _inputs(v: Array, step: tuple[float, float] | None, external: bool) -> list[str]:
    if len(v) > 1:
        return input_tables(v, "x0")
    volts = [_level(value, step) for value in v[0].tolist()]
    kind = " external" if external else ""
    return ["* inputs [V]", *(f"vi_{i} x0_{i} 0 {value}{kind}" for i, value in enumerate(volts))]


def _level(value: float, step: tuple[float, float] | None) -> str:
    return repr(value) if step is None else f"pwl(0 0 {step[0]!r} {value!r})"


def _stage(
    s: int, stage: Stage, periphery: Periphery, step: tuple[float, float] | None
) -> list[str]:
    lines = [
        f"* stage {s}: {comment_text(stage.name)}",
        f"vdrv{s} drv{s} 0 {periphery.driver.supply!r}",
        f"vtia{s} tia{s} 0 {periphery.tia.supply!r}",
    ]
    for i, level in enumerate(stage.bias.tolist(), stage.inputs):
        lines.append(f"vb{s}_{i} x{s}_{i} 0 {_level(level, step)}")
    for block in stage.blocks:
        crossbar = block.crossbar
        for row, line in enumerate(_wordlines(s, block), block.row):
            gain = stage.gain if row < stage.inputs else 1.0
            nodes = (f"x{s}_{row}", f"o{line}", f"drv{s}")
            lines.append(driver_instance(f"d{line}", nodes, periphery.driver, gain))
            lines.append(f"va{line} o{line} w{line} 0")
        ports = [f"w{line}" for line in _wordlines(s, block)]
        ports += [f"l{s}_{block.line + k}" for k in range(crossbar.bitlines)]
        lines += words(f"xt_{crossbar.name}", [*ports, crossbar.name])
    if stage.activation:
        lines += [
            f"vpos{s} pos{s} 0 {periphery.neuron.supply / 2!r}",
            f"vneg{s} neg{s} 0 {-periphery.neuron.supply / 2!r}",
        ]
    for k in range(stage.outputs):
        out = f"z{s}_{k}" if stage.activation else _output(s, k)
        first, second = stage.tia_offset[:, k].tolist()
        lines.append(
            diff_tia_instance(
                f"a{s}_{k}",
                (f"l{s}_{2 * k}", f"l{s}_{2 * k + 1}", out, f"tia{s}"),
                periphery.tia,
                stage.r_first,
                stage.r_feedback,
                (first, second),
            )
        )
        if stage.activation:
            lines.append(
                neuron_instance(
                    f"n{s}_{k}",
                    (out, _output(s, k), f"pos{s}", f"neg{s}"),
                    stage.activation,
                    periphery.neuron,
                    float(stage.neuron_offset[k]),
                )
            )
    return lines


def _output(s: int, k: int) -> str:
    return f"x{s + 1}_{k}"


def _analysis(network: AnalogNetwork, v: Array, step: tuple[float, float] | None) -> list[str]:
    saved = [name for names in output_vectors(network) for name in names]
    if step is not None:
        for s, stage in enumerate(network.stages):
            saved += [name for names in power_vectors(s, stage).values() for name in names]
        rise, stop = step
        # The rise is resolved, and what settles slowly has points to integrate over.
        analysis = f".tran {rise / 4!r} {stop!r} 0 {stop / _POINTS!r}"
    else:
        analysis = ".op" if len(v) == 1 else f".dc vidx 0 {len(v) - 1} 1"
    kind = analysis.split()[0][1:]
    printed = output_vectors(network)[-1]
    return [*words(".save", saved), analysis, *words(f".print {kind}", printed)]
