"""Event-driven co-simulation: analog circuits and digital processes under one clock.

Spiking networks are in ``cosim.neuron`` and ``cosim.spiking``, traces for surrogates in
``cosim.characterize``: they load torch.
"""

from spicenn.cosim.block import Block, Threshold
from spicenn.cosim.control import network, sampled
from spicenn.cosim.converter import (
    SarAdc,
    convert,
    digitize,
    latch,
    sar_circuit,
    sar_subcircuits,
)
from spicenn.cosim.events import Crossing, Spike
from spicenn.cosim.export import write_traces, write_vcd
from spicenn.cosim.kernel import Cosimulation
from spicenn.cosim.memristors import ArrayPins, MemristorArray, array_netlist
from spicenn.cosim.programming import (
    Programmed,
    Read,
    Staircase,
    nominal_pulse,
    write_blind,
    write_verify,
)
from spicenn.cosim.routing import AddressBus, Pulses, Route, collect
from spicenn.cosim.sources import (
    AddressEvents,
    latency_code,
    play,
    poisson,
    rate_code,
    regular,
    spikes,
)
from spicenn.cosim.store import load_record, save_record

__all__ = [
    "AddressBus",
    "AddressEvents",
    "ArrayPins",
    "Block",
    "Cosimulation",
    "Crossing",
    "MemristorArray",
    "Programmed",
    "Pulses",
    "Read",
    "Route",
    "SarAdc",
    "Spike",
    "Staircase",
    "Threshold",
    "array_netlist",
    "collect",
    "convert",
    "digitize",
    "latch",
    "latency_code",
    "load_record",
    "network",
    "nominal_pulse",
    "play",
    "poisson",
    "rate_code",
    "regular",
    "sampled",
    "sar_circuit",
    "sar_subcircuits",
    "save_record",
    "spikes",
    "write_blind",
    "write_traces",
    "write_vcd",
    "write_verify",
]
