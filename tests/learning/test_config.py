"""Configurations of learning runs: what is read, and what every mistake is answered with."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError
from spicenn.learning import config
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.examples import two_tasks
from spicenn.learning.hardware import Hardware
from spicenn.learning.plan import FastPlan, Plan
from spicenn.learning.rules import Desynchronous, Overclamping

DOCS = Path(__file__).parents[2] / "docs" / "learn"

GRAPH = """
[network]
kind = "graph"
inputs = ["in", "low", "high"]
outputs = ["out"]
edges = [["out", "low"], ["high", "out", "strong"], ["in", "out", "fixed"]]

[network.elements.strong]
kind = "transistor"
transconductance = "1.7m"

[network.elements.fixed]
kind = "resistor"
conductance = "2m"

[hardware]
bias = ["1m", 2e-3]
bias_std = "0.1m"
output_offset = ["1m"]

[task]
inputs = [["0.4351"], ["18.1m"]]
labels = [["0.31"], ["0.14"]]
constants = ["18.1m", "435.1m"]
period = "5m"

[rule]
name = "coupled_learning"

[run]
by = "model"
chips = [3, 5]
seed = 7
periods = 10
start = [2.5, 2.0]
"""

FAST = """
[network]
kind = "layered"
sizes = [2, 3, 2]
[task]
inputs = [[0.0, 1.0], [1.0, 0.0]]
labels = [0, 1]
[rule]
name = "equilibrium_propagation"
beta = "1u"
rates = "1n"
[run]
by = "fast"
epochs = 2
seed = 1
"""


def plan_of(text: str, folder: Path | None = None) -> Plan:
    found = config.parse(text, folder=folder)
    assert isinstance(found, Plan)
    return found


def test_a_graph_is_read_with_its_elements_bias_and_task() -> None:
    """Suffixes, elements by name, constants, one bias per edge."""
    plan = plan_of(GRAPH)
    elements = [edge.element for edge in plan.network.edges]
    assert elements == [
        Transistor(), Transistor(transconductance=1.7e-3), Resistor(conductance=2e-3),
    ]  # fmt: skip
    assert plan.bias is not None
    np.testing.assert_array_equal(plan.bias, [1e-3, 2e-3])
    np.testing.assert_allclose(plan.task.inputs[1], [0.0181, 0.0181, 0.4351], rtol=1e-12)
    assert plan.run.slots == 20
    assert plan.schedule.slot == 2.5e-3
    assert plan.chips == (3, 5)
    np.testing.assert_array_equal(plan.begin(3), [2.5, 2.0])


def test_a_listed_bias_is_the_mean_that_spread_is_drawn_around() -> None:
    """The draws are those of the hardware without a list: same seed, same chip."""
    plan = plan_of(GRAPH)
    plain = plan_of(GRAPH.replace('bias = ["1m", 2e-3]', "").replace('output_offset = ["1m"]', ""))
    for index in plan.chips:
        drawn = plan.chip(index).bias - plain.chip(index).bias
        np.testing.assert_allclose(drawn, [1e-3, 2e-3], rtol=1e-12)
        assert plan.chip(index).output_offset[0] == 1e-3
    assert not np.array_equal(plan.chip(3).bias, plan.chip(5).bias)


def test_the_example_is_the_examples_own_chip() -> None:
    """What the file calls two_tasks has the circuit, bias and task of the function."""
    plan = config.load(DOCS / "two-tasks.toml")
    assert isinstance(plan, Plan)
    example = two_tasks(speeds=(2.87, 4.72), rate=2.0)
    assert plan.network == example.chip.network
    np.testing.assert_array_equal(plan.chip(0).bias, example.chip.bias)
    np.testing.assert_array_equal(plan.task.inputs, example.task.inputs)


def test_a_speed_of_the_bias_is_the_biass_own_unit() -> None:
    """[V/s] at the rule's rate becomes [V^2] in the bracket."""
    text = GRAPH.replace('bias = ["1m", 2e-3]', "bias_speed = [2.87, 4.72]")
    np.testing.assert_array_equal(plan_of(text).bias, Hardware().bias_of([2.87, 4.72], 2.0))


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_configurations_that_ship_are_read(path: Path) -> None:
    assert isinstance(config.load(path), Plan | FastPlan)


def test_the_other_kinds_of_networks_rules_and_runs() -> None:
    """Layers with diodes, a default element, overclamping with a share, a duration, a draw."""
    text = """
[network]
kind = "layered"
sizes = [2, 2, 1]
element = {kind = "resistor", conductance = "1m", learns = true}
diode = {saturation = "1p", emission = 0.1}
[task]
inputs = [[0.1, 0.2]]
labels = [[0.1]]
period = "1m"
order = "shuffled"
[rule]
name = "overclamping"
low = 0
high = "450m"
time = false
share = 0.5
[run]
by = "circuit"
seed = 3
duration = "10.5m"
start = {low = "1m", high = "2m"}
solver = {method = "trap", steps = 20, reltol = 1e-6}
"""
    plan = plan_of(text)
    assert isinstance(plan.network.edges[-1].element, Diode)
    assert plan.rule == Desynchronous(Overclamping(low=0, high=0.45, time=False), 0.5)
    assert plan.run.slots == 11
    solver = plan.run.options["solver"]
    assert (solver.method, solver.steps, solver.tolerances.reltol) == ("trap", 20, 1e-6)
    begin = plan.begin(0)
    assert ((begin >= 1e-3) & (begin <= 2e-3)).all()
    no_start = text.replace('start = {low = "1m", high = "2m"}', "")
    assert set(plan_of(no_start).begin(0)) == {1e-3}


def test_a_longer_shuffled_schedule_begins_as_the_shorter_one() -> None:
    """So that more periods than before can go on."""
    text = GRAPH.replace('period = "5m"', 'period = "5m"\norder = "shuffled"')
    short = plan_of(text).schedule.examples(20)
    long = plan_of(text.replace("periods = 10", "periods = 40")).schedule.examples(20)
    np.testing.assert_array_equal(short, long)


def test_what_a_run_is_does_not_depend_on_how_long_it_is() -> None:
    """Nor on spelling, nor on which chips; it depends on all else."""
    plan = plan_of(GRAPH)
    same = GRAPH.replace('"5m"', "0.005").replace("periods = 10", "duration = 1")
    same = same.replace("[3, 5]", "8") + "\n[run.solver]\n"
    assert plan_of(same.replace("[run.solver]", "")).described() == plan.described()
    for old, new, name in (
        ("2e-3]", "2.1e-3]", "bias"), ('"5m"', '"6m"', "period"), ("0.31", "0.32", "labels"),
        ("coupled_learning\"", 'coupled_learning"\neta = 0.5', "rule"), ("seed = 7", "seed = 8",
        "seed"), ("2.0]", "2.1]", "start"), ("1.7m", "1.8m", "network"),
    ):  # fmt: skip
        other = plan_of(GRAPH.replace(old, new)).described()
        differing = [key for key in other if other[key] != plan.described()[key]]
        assert differing == [name]


def test_a_fast_plan_has_its_data_and_options(tmp_path: Path) -> None:
    plan = config.parse(FAST)
    assert isinstance(plan, FastPlan)
    assert plan.sizes == (2, 3, 2)
    assert plan.labels.tolist() == [0, 1]
    assert plan.options["rates"] == 1e-9
    np.save(tmp_path / "x.npy", np.eye(2))
    np.save(tmp_path / "y.npy", np.array([1, 0]))
    named = re.sub(r"inputs = .*", 'inputs = "x.npy"', FAST)
    named = re.sub(r"labels = .*", 'labels = "y.npy"', named)
    files = config.parse(named, folder=tmp_path)
    assert isinstance(files, FastPlan)
    np.testing.assert_array_equal(files.x, np.eye(2))
    np.testing.assert_array_equal(files.labels, [1, 0])


# What is replaced, by what, and words of the answer; a line's number where it can be told.
WRONG = [
    ('kind = "graph"', 'kind = "grap"', "line 3, column 1: network.kind"),
    ('kind = "graph"', 'kind = "grap"', "is 'graph' meant?"),
    ('kind = "graph"', "", "network.kind is missing"),
    ('kind = "graph"', 'kidn = "graph"', "is missing; is 'kidn' meant?"),
    ('kind = "graph"', "kind = 3", "is not text"),
    ("bias_std", "bias_sdt", "line 18, column 1: unknown key 'hardware.bias_sdt'"),
    ("bias_std", "bias_sdt", "is 'bias_std' meant?"),
    ('bias_std = "0.1m"', 'bias_std = "-0.1m"', "hardware.bias_std = -0.0001 is out of range"),
    ('bias_std = "0.1m"', 'bias_std = "much"', "'much' is not a quantity"),
    ('bias_std = "0.1m"', "bias_std = nan", "is not a quantity"),
    ('bias_std = "0.1m"', "bias_std = true", "is not a quantity"),
    ('bias = ["1m", 2e-3]', 'bias = ["1m"]\ngate_low = 6', "gate_low = 6.0 V is not below"),
    ('bias = ["1m", 2e-3]', "bias = [1, 2, 3]", "hardware.bias has 3 numbers, not one or 2"),
    ('bias = ["1m", 2e-3]', "bias = 1\nbias_speed = 2", "says what hardware.bias says"),
    ('output_offset = ["1m"]', "output_offset = [1, 2]", "output_offset has 2 numbers"),
    ('outputs = ["out"]', 'outputs = ["nowhere"]', "'nowhere' is no node"),
    ('outputs = ["out"]', 'outputs = "out"', "network.outputs = 'out' is not a list"),
    ('outputs = ["out"]', "outputs = [1]", "network.outputs = 1 is not text"),
    ('["out", "low"]', '["out", "out"]', "joins 'out' to itself"),
    ('["out", "low"]', '["out", "Low;"]', "is not a node's name"),
    ('["out", "low"]', '["out"]', "edge 1 is ['out']"),
    ('["out", "low"]', '["out", "low", "strnog"]', "is no element"),
    ('conductance = "2m"', 'conductance = "-2m"', "conductance = -0.002 is negative"),
    ('conductance = "2m"', 'threshold = "2m"', "unknown key 'network.elements.fixed.threshold'"),
    ('conductance = "2m"', 'learns = "yes"', "neither true nor false"),
    ('inputs = [["0.4351"], ["18.1m"]]', "inputs = [1, 2]", "task.inputs is not a list of lists"),
    ('inputs = [["0.4351"], ["18.1m"]]', "inputs = [[1], [1, 2]]", "rows of different lengths"),
    ('inputs = [["0.4351"], ["18.1m"]]', "inputs = [[1]]", "1 inputs and 2 labels"),
    ('inputs = [["0.4351"], ["18.1m"]]', "inputs = [[1, 1], [2, 2]]", "the network has 3"),
    ('inputs = [["0.4351"], ["18.1m"]]', 'inputs = "x.npy"', "a file cannot be named here"),
    ('period = "5m"', "", "task.period is missing"),
    ('period = "5m"', "period = 0", "a slot of 0.0 s"),
    ('period = "5m"', 'period = "5m"\nedge = 1', "edges of 1.0 s"),
    ('period = "5m"', 'period = "5m"\norder = "random"', "there are cyclic, shuffled"),
    ('period = "5m"', 'period = "5m"\nname = "digits"', "trained by = 'fast'"),
    ('name = "coupled_learning"', 'name = "backprop"', "rule.name = 'backprop' is not known"),
    ('name = "coupled_learning"', 'name = "overclamping"', "rule.low is missing"),
    ('name = "coupled_learning"', 'name = "coupled_learning"\neta = 2', "rule.eta = 2.0"),
    (
        'name = "coupled_learning"',
        'name = "coupled_learning"\nshare = 0',
        "rule.share = 0.0 is not",
    ),
    ('name = "coupled_learning"', 'name = "coupled_learning"\ndifferential = true', "not pairs"),
    (
        'name = "coupled_learning"',
        'name = "equilibrium_propagation"\nbeta = 1\ndifferential = true',
        "rule.differential is of outputs that are clamped",
    ),
    ('name = "coupled_learning"', 'name = "coupled_learning"\nbeta = 1', "unknown key 'rule.beta'"),
    ('by = "model"', 'by = "moddel"', "is 'model' meant?"),
    ('by = "model"', 'by = "model"\nsolver = {steps = 9}', "unknown key 'run.solver'"),
    ('by = "model"', 'by = "circuit"\nsolver = {steps = 0}', "run.solver.steps"),
    ('by = "model"', 'by = "circuit"\nsolver = {reltol = 0}', "run.solver.reltol = 0.0"),
    ('by = "model"', 'by = "model"\nengine = "newton"', "unknown key 'run.engine'"),
    ('by = "model"', 'by = "controller"\nengine = "spice"', "there are newton, ngspice"),
    ('by = "model"', 'by = "controller"\nbatch = true\nupdates = 2', "run.batch is one update"),
    ('by = "model"', 'by = "controller"\nconverters = {reading_bits = 0}', "reading_bits"),
    ('by = "model"', 'by = "circuit"\ntimeout = 0', "run.timeout = 0.0 is not positive"),
    ("chips = [3, 5]", "chips = [3, 3]", "names one twice"),
    ("chips = [3, 5]", "chips = 0", "not an integer of at least 1"),
    ("chips = [3, 5]", "chips = 1.5", "not an integer of at least 1"),
    ("chips = [3, 5]", "", "hardware.bias_std is drawn chip by chip"),
    ("seed = 7", "", "run.chips are drawn, and run.seed is missing"),
    ("seed = 7", "seed = -1", "not an integer of at least 0"),
    ("periods = 10", "", "run.periods or run.duration is missing"),
    ("periods = 10", "periods = 10\nduration = 1", "says what run.periods says"),
    ("periods = 10", "duration = -1", "run.duration = -1.0 is not positive"),
    ("periods = 10", "duration = 1e300", "run.duration is of 10000000 slots or more"),
    ("periods = 10", "periods = 9000000", "run.periods is of 10000000 slots or more"),
    ("start = [2.5, 2.0]", "start = [2.5, 0.9]", "run.start is not within what"),
    ("start = [2.5, 2.0]", "start = {low = 2, high = 6}", "capacitors hold, 1 to 5"),
    ("start = [2.5, 2.0]", "start = [2.5]", "run.start has 1 numbers, not one or 2"),
    ("start = [2.5, 2.0]", "", "run.start is missing"),
    ("start = [2.5, 2.0]", "start = {low = 2, high = 1}", "run.start.low = 2.0 is not below"),
    ("start = [2.5, 2.0]", "start = {low = 2}", "run.start.high is missing"),
    ("start = [2.5, 2.0]", "start = {low = 1, high = 2, mid = 1}", "unknown key 'run.start.mid'"),
    ("[rule]", "[rules]", "rule is missing"),
    ("[rule]", "[extra]\na = 1\n[rule]", "unknown key 'extra'"),
    ("[rule]", "[[rule]]", "is not a table"),
    ("[rule]", "[rule", "is not TOML"),
]


@pytest.mark.parametrize(("old", "new", "words"), WRONG, ids=[row[2] for row in WRONG])
def test_mistakes_are_answered_with_place_and_remedy(old: str, new: str, words: str) -> None:
    assert old in GRAPH
    with pytest.raises(InputError) as caught:
        config.parse(GRAPH.replace(old, new, 1), where="net.toml")
    assert words in str(caught.value)
    assert str(caught.value).startswith("net.toml")


WRONG_FAST = [
    ("[rule]", "[hardware]\nbias = 1\n[rule]", "leave [hardware] out"),
    ("[2, 3, 2]", "[3, 3, 2]", "does not begin with the 2 features"),
    ("[2, 3, 2]", "2", "is not a list"),
    ("labels = [0, 1]", "labels = [0, -1]", "not an integer of at least 0"),
    ('"layered"', '"grid"', "there are layered"),
    ('"equilibrium_propagation"', '"overclamping"', "there are equilibrium_propagation"),
    ("seed = 1", "", "run.seed is missing"),
    ("epochs = 2", "periods = 2", "run.epochs is missing"),
    ("inputs = [[0.0, 1.0], [1.0, 0.0]]", 'name = "letters"', "there are digits, mnist"),
    ('sizes = [2, 3, 2]', 'sizes = [2, 3, 2]\ndiode = "real"', "there are ideal, none"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), WRONG_FAST, ids=[row[2] for row in WRONG_FAST])
def test_mistakes_of_a_fast_plan(old: str, new: str, words: str) -> None:
    assert old in FAST
    with pytest.raises(InputError, match=re.escape(words)):
        config.parse(FAST.replace(old, new, 1))


class Evil:
    """Writes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_files_stay_in_the_folder_and_are_never_executed(tmp_path: Path) -> None:
    """Ways out, links out, pickles and wrong kinds of files are one error each."""
    inside = tmp_path / "inside"
    inside.mkdir()
    np.save(tmp_path / "x.npy", np.ones((2, 1)))
    (inside / "link.npy").symlink_to(tmp_path / "x.npy")
    (inside / "text.npy").write_text("no numbers")
    mark = tmp_path / "mark"
    np.save(inside / "evil.npy", np.array([Evil(mark)], dtype=object), allow_pickle=True)
    np.save(inside / "words.npy", np.array(["a"]))
    np.savez(inside / "many.npz", a=np.ones(3))
    (inside / "many.npz").rename(inside / "many.npy")
    for name, words in (
        ("../x.npy", "not in the configuration's folder"),
        (str(tmp_path / "x.npy"), "not in the configuration's folder"),
        ("link.npy", "not in the configuration's folder"),
        ("absent.npy", "cannot be read"),
        (".", "is not a .npy file"),
        ("text.npy", "is no .npy file"),
        ("evil.npy", "holds Python objects"),
        ("words.npy", "holds no numbers but <U1"),
        ("many.npy", "is no .npy file"),
        ("a\\u0000.npy", "is not a path"),
    ):
        text = GRAPH.replace('inputs = [["0.4351"], ["18.1m"]]', f'inputs = "{name}"')
        with pytest.raises(InputError, match=re.escape(words)):
            config.parse(text, folder=inside)
    assert not mark.exists()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InputError, match=re.escape(str(path))):
            config.load(path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        config.load(tmp_path / "bytes.toml")


@given(st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever stands in a file or a value is an InputError or a plan."""
    for whole in (text, GRAPH.replace('"5m"', text), GRAPH.replace('"graph"', f'"""{text}"""')):
        with suppress(InputError):
            assert isinstance(config.parse(whole), Plan)


def test_a_plan_is_its_own_record() -> None:
    """Its text is the file's, so that a run's folder can keep it."""
    plan = plan_of(GRAPH)
    assert plan_of(plan.text).described() == plan.described()
    assert replace(plan, text="").described() == plan.described()
