"""What is read of a netlist that is to be stepped: sources, nodes, and what is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.circuit.stepped import Source, stepped
from spicenn.errors import InputError, NetlistError


def test_the_first_line_is_the_title_even_where_it_looks_like_an_element():
    circuit = stepped("r1 a 0 1k\nr2 b 0 1k\n")
    assert circuit.title == "r1 a 0 1k"
    assert circuit.probes == ("b",)


def test_sources_start_where_they_say_and_ngspice_is_told_of_no_dc_value():
    text = "t\nVA a 0 dc 0.5 external\nIB 0 b EXTERNAL dc=2m\nvc c 0 external\nvd d 0 1k external\n"
    circuit = stepped(text + "r1 a b 1\nr2 c d 1\n")
    assert circuit.sources == (
        Source("va", True, 0.5),
        Source("ib", False, 2e-3),
        Source("vc", True, 0.0),
        Source("vd", True, 1e3),
    )
    driven = [line for line in circuit.lines if "external" in line]
    assert driven[:2] == ["va a 0 dc 0 external", "ib 0 b dc 0 external"]


def test_nodes_of_every_kind_of_element_and_none_of_its_parameters():
    text = """t
M1 d g s b nch w=1u l=0.2u
q1 qc qb qe npn
x1 xa xb inner params: k=2 c = 3
x2 xc xd inner k={ 2 * 3 }
k1 l1 l2 0.9
l1 la 0 1u
l2 lb 0 1u
b1 ba 0 v=v(la)*2
e1 ea 0 la lb 2
s1 sa sb sc sd sw
+ on
.param p=3 q={p*2}
.subckt inner a b
r1 a mid 1k
r2 mid b 1k
.ends
"""
    circuit = stepped(text)
    expected = {"d", "g", "s", "b", "qc", "qb", "qe", "xa", "xb", "xc", "la", "lb", "ba", "ea"}
    assert set(circuit.probes) == expected | {"sa", "sb", "sc", "sd", "xd"}
    assert stepped(text, ["x1.mid", "V(X2.MID)"]).probes == ("x1.mid", "x2.mid")


def test_nodes_inside_of_nested_instances_are_found_and_ports_are_not():
    text = """t
x1 a b outer
.subckt outer p q
xin p q inner
.ends
.subckt inner p q
r1 p deep 1k
r2 deep q 1k
.ends
"""
    assert stepped(text, ["x1.xin.deep"]).probes == ("x1.xin.deep",)
    for wrong in ("x1.p", "x1.xin.q", "x1.deep", "x2.xin.deep", "nowhere", "x1"):
        with pytest.raises(InputError):
            stepped(text, [wrong])


def test_a_source_inside_of_a_subcircuit_cannot_be_driven():
    with pytest.raises(NetlistError, match="top level"):
        stepped("t\nx1 a s\n.subckt s a\nvx a 0 dc 0 external\n.ends\n")


def test_analyses_are_left_out_and_control_blocks_refused():
    circuit = stepped("t\nr1 a 0 1\nv1 a 0 1\n.tran 1n 1u\n.save v(a)\n.end\nr9 z 0 1\n")
    assert circuit.lines == ("r1 a 0 1", "v1 a 0 1")
    with pytest.raises(NetlistError):
        stepped("t\nr1 a 0 1\n.control\nshell ls\n.endc\n")


def test_currents_ground_and_too_many_nodes():
    text = "t\nv1 a 0 1\nr1 a 0 1\n"
    circuit = stepped(text, ["a", "i(v1)"])
    assert [circuit.vector(probe) for probe in circuit.probes] == ["a", "v1#branch"]
    assert circuit.reader("i(v1)") == "@v1[i]"
    for wrong in ("0", "gnd", "i(v2)", "a;quit", "i(r1)"):
        with pytest.raises(InputError):
            stepped(text, [wrong])
    with pytest.raises(InputError, match="too many"):
        stepped("t\n" + "\n".join(f"r{k} n{k} 0 1" for k in range(65)))


names = st.text("abcdefgh0123456789_", min_size=1, max_size=6).filter(lambda name: name != "0")


@given(
    st.lists(st.tuples(names, names), min_size=1, max_size=10), st.randoms(use_true_random=False)
)
def test_case_blanks_comments_and_continuations_change_nothing(pairs, random):
    plain = [f"r{k} {a} {b} 1k" for k, (a, b) in enumerate(pairs)]
    dressed = []
    for line in plain:
        line = "".join(c.upper() if random.random() < 0.5 else c for c in line)
        at = line.index(" ")
        dressed += ["* a remark", line[:at], "+" + line[at:].replace(" ", "   ")]
    assert stepped("\n".join(["t", *dressed])).probes == stepped("\n".join(["t", *plain])).probes
