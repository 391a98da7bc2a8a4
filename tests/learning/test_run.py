"""Runs of chips: recorded, killed, gone on with; failures and aborts are kept, not dropped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

from spicenn.errors import InputError, Status, StoreError
from spicenn.learning import config
from spicenn.learning.learn import learn
from spicenn.learning.plan import FastPlan, Plan
from spicenn.learning.record import cycle_of, open_record, save_record
from spicenn.learning.run import (
    CHIPS,
    CONFIGURATION,
    NETWORK,
    RECORD,
    RUN,
    Progress,
    last_period,
    learn_chips,
    train_fast,
)
from spicenn.learning.trajectory import Abort, Trajectory

TWO_TASKS = """
[network]
kind = "example"
example = "two_tasks"
[task]
period = "20m"
[rule]
name = "coupled_learning"
[run]
by = "controller"
periods = 12
slots_at_once = 5
start = 2.5
"""
# Sampled chips with noise, so that every draw must be that of its own slot.
SAMPLED = TWO_TASKS.replace("start = 2.5", "start = {low = 2.0, high = 3.0}\nchips = 3\nseed = 4")
SAMPLED = SAMPLED.replace(
    "[rule]", '[hardware]\nthreshold_std = "5m"\nupdate_noise = 1e-5\n[rule]\nshare = 0.7'
)

FAST = """
[network]
kind = "layered"
sizes = [2, 3, 2]
[task]
inputs = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
labels = [0, 1, 0, 1]
[rule]
name = "equilibrium_propagation"
beta = "0.1u"
rates = "1n"
[run]
by = "fast"
epochs = 2
seed = 1
"""


def plan_of(text: str) -> Plan:
    found = config.parse(text)
    assert isinstance(found, Plan)
    return found


def test_the_record_is_what_the_learner_did(tmp_path: Path) -> None:
    """Values, outputs and examples slot by slot; units; written and read the same."""
    plan = plan_of(TWO_TASKS)
    done = learn_chips(plan, tmp_path / "run")
    ds = done.ds
    alone = learn(
        plan.chip(0), plan.task, plan.rule, plan.schedule, plan.begin(0), slots=24,
        by="controller",
    )  # fmt: skip
    np.testing.assert_allclose(ds["value"][0], alone.values[1:], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ds["example"][0], alone.examples)
    np.testing.assert_allclose(ds["time"], alone.time[1:], rtol=1e-12)
    assert ds["value"].attrs["units"] == "V"
    assert ds["squared_error"].attrs["units"] == "V^2"
    assert ds["status"].values.tolist() == [Status.OK]
    np.testing.assert_allclose(
        ds["mean_square_error"], [_error_of_last_period(plan, done.runs[0].values)], rtol=1e-12
    )
    read = open_record(tmp_path / "run" / RECORD)
    assert read.identical(ds)
    assert config.parse(read.attrs["configuration"]).text == plan.text
    assert (tmp_path / "run" / CONFIGURATION).read_text() == plan.text


def _error_of_last_period(plan: Plan, values: np.ndarray) -> float:
    """By a route of its own: every example at every one of the last two slots' ends."""
    from spicenn.learning.contrast import answers

    chip = plan.chip(0)
    squares = [
        (answers(chip, v, x) - label) ** 2
        for v in values[-2:]
        for x, label in zip(plan.task.inputs, plan.task.labels, strict=True)
    ]
    return float(np.mean(squares))


def test_errors_of_pairs_of_outputs_are_those_of_their_difference(tmp_path: Path) -> None:
    """Labels of a differential rule are of an output less the other of its pair."""
    text = TWO_TASKS.replace('"two_tasks"', '"xor"').replace(
        '"coupled_learning"', '"coupled_learning"\ndifferential = true'
    )
    plan = plan_of(text.replace("12", "1"))
    ds = learn_chips(plan, tmp_path / "run").ds
    first, second = ds["output"].values[0].T
    labels = ds["label"].values[ds["example"].values[0], 0]
    expected = (first - second - labels) ** 2
    np.testing.assert_allclose(ds["squared_error"][0], expected, rtol=1e-9)
    assert float(ds["mean_square_error"][0]) < 0.01  # of 60 mV; a single output is at 0.2 V


@pytest.mark.slow
@pytest.mark.ngspice
def test_d_is_given_where_there_is_a_cycle(tmp_path: Path) -> None:
    """After a few periods values still move on; later the published cycle is there.

    D of 0.139 V at a period of 20 ms (0.133 V in the laboratory). A period run again
    in finer slots ends where the run did.
    """
    text = TWO_TASKS.replace('"controller"', '"circuit"')
    early = learn_chips(plan_of(text.replace("12", "2")), tmp_path / "run").ds
    assert np.isnan(cycle_of(early, 0))
    plan = plan_of(text.replace("12", "60"))
    done = learn_chips(plan, tmp_path / "run")
    assert cycle_of(done.ds, 0) == pytest.approx(0.1389, rel=2e-3)
    period = last_period(plan, 0, done.runs[0])
    assert period.shape == (65, 2)
    np.testing.assert_allclose(period[[32, 64]], done.ds["value"][0, -2:], rtol=0, atol=1e-4)


def test_parts_that_were_lost_or_cut_are_done_again_bit_for_bit(tmp_path: Path) -> None:
    """Of sampled, noisy chips whose edges take part at random."""
    plan = plan_of(SAMPLED)
    whole = learn_chips(plan, tmp_path / "whole", workers=1)
    assert len(set(whole.ds["value"][:, -1, 0].values)) == 3
    learn_chips(plan, tmp_path / "broken", workers=2)
    parts = sorted((tmp_path / "broken" / CHIPS / "1").glob("*.npz"))
    assert len(parts) == 5
    parts[-1].unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:100])
    (tmp_path / "broken" / CHIPS / "2" / "0000000000.npz").unlink()
    again = learn_chips(plan, tmp_path / "broken", workers=2)
    assert again.resumed == 24 + 10
    for name in ("value", "output", "squared_error", "mean_square_error", "example"):
        np.testing.assert_array_equal(again.ds[name], whole.ds[name])


def test_more_periods_and_more_chips_go_on(tmp_path: Path) -> None:
    """What was there stays as it is; fewer chips are a part of the record."""
    short = learn_chips(plan_of(SAMPLED.replace("chips = 3", "chips = [1]")), tmp_path / "run")
    long = learn_chips(plan_of(SAMPLED.replace("12", "15")), tmp_path / "run")
    assert long.resumed == 24
    assert long.ds.sizes["slot"] == 30
    np.testing.assert_array_equal(long.ds["value"].sel(chip=1)[:24], short.ds["value"][0])
    anew = learn_chips(plan_of(SAMPLED.replace("12", "15")), tmp_path / "anew")
    np.testing.assert_allclose(long.ds["value"], anew.ds["value"], rtol=0, atol=1e-12)
    fewer = learn_chips(
        plan_of(SAMPLED.replace("12", "15").replace("chips = 3", "chips = [2]")), tmp_path / "run"
    )
    assert fewer.ds["chip"].values.tolist() == [2]
    with pytest.raises(StoreError, match="30 slots already, 24 are asked for"):
        learn_chips(plan_of(SAMPLED), tmp_path / "run")


def test_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    learn_chips(plan_of(TWO_TASKS), tmp_path / "run")
    for old, new, words in (
        ('"20m"', '"21m"', "differs in period"),
        ("start = 2.5", "start = 2.6", "differs in start"),
        ('"coupled_learning"', '"coupled_learning"\neta = 0.5', "differs in rule"),
        ('"controller"', '"model"', "by controller, not by model"),
        ("slots_at_once = 5", "slots_at_once = 6", "differs in slots_at_once"),
    ):
        with pytest.raises(StoreError, match=words):
            learn_chips(plan_of(TWO_TASKS.replace(old, new)), tmp_path / "run")
    fast = config.parse(FAST)
    assert isinstance(fast, FastPlan)
    with pytest.raises(StoreError, match="by controller, not by fast"):
        train_fast(fast, tmp_path / "run")


def test_a_folder_that_is_no_runs_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds something that is no run"):
        learn_chips(plan_of(TWO_TASKS), tmp_path / "other")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="cannot be written"):
        learn_chips(plan_of(TWO_TASKS), tmp_path / "file")
    for content in ("{", "[]", '{"spicenn": 9, "kind": "learning"}', '{"kind": 1}'):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / RUN).write_text(content)
        with pytest.raises(StoreError, match="is not that of a run"):
            learn_chips(plan_of(TWO_TASKS), tmp_path / "bad")
    with pytest.raises(InputError, match="workers"):
        learn_chips(plan_of(TWO_TASKS), tmp_path / "none", workers=0)


def test_an_interrupted_run_is_recorded_and_goes_on(tmp_path: Path) -> None:
    """With the chips that are done, what others did, and NaN for the rest."""
    # Progress is called ten times a second: long enough for it to come before the end.
    plan = plan_of(SAMPLED.replace("periods = 12", "periods = 100"))

    def stop(now: Progress) -> None:
        if now.done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_chips(plan, tmp_path / "run", workers=1, progress=stop)
    ds = open_record(tmp_path / "run" / RECORD)
    done = (ds["example"] >= 0).sum("slot").values
    assert 10 <= done.sum() < 600
    assert np.isfinite(ds["value"][:, :, 0]).sum() == done.sum()
    assert set(ds["status"].values) <= {Status.OK, Status.PENDING}
    seen: list[Progress] = []
    rest = learn_chips(plan, tmp_path / "run", workers=1, progress=seen.append)
    assert rest.resumed >= done.sum()
    assert (seen[-1].done, seen[-1].slots, seen[-1].finished) == (600, 600, 3)
    whole = learn_chips(plan, tmp_path / "whole")
    np.testing.assert_array_equal(rest.ds["value"], whole.ds["value"])


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_chip_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Timeouts are tried again, with the first one's message kept until then.

    Slots without a solution are not tried again: another chip's status stays as it is.
    """
    text = SAMPLED.replace('"controller"', '"circuit"').replace("update_noise = 1e-5", "")
    short = plan_of(text.replace("seed = 4", 'seed = 4\ntimeout = "1n"'))
    failed = learn_chips(short, tmp_path / "run", workers=2).ds
    assert failed["status"].values.tolist() == [Status.TIMEOUT] * 3
    assert "no answer in 1e-09 s" in str(failed["message"].values[0])
    assert np.isnan(failed["value"]).all()
    end = {"status": int(Status.NOT_CONVERGED), "message": "slot 7 of the schedule: no solution"}
    (tmp_path / "run" / CHIPS / "1" / "end.json").write_text(json.dumps(end))
    ds = learn_chips(plan_of(text), tmp_path / "run", workers=2).ds
    assert ds["status"].values.tolist() == [Status.OK, Status.NOT_CONVERGED, Status.OK]
    assert str(ds["message"].values[1]) == end["message"]
    assert np.isfinite(ds["value"][[0, 2]]).all()
    assert np.isnan(ds["value"][1]).all()


def test_aborted_slots_are_listed_with_what_went_through(tmp_path: Path) -> None:
    """Those that a kept part has are in the record, chip by chip, when the run goes on."""
    plan = plan_of(SAMPLED)
    learn_chips(plan, tmp_path / "run")
    path = tmp_path / "run" / CHIPS / "1" / "0000000005.npz"
    abort = Abort(slot=7, message="Timestep too small", retry=2, settings="trap, 200 steps a slot")
    replace(Trajectory.load(path), aborts=(abort,)).save(path)
    learn_chips(plan, tmp_path / "run")
    ds = open_record(tmp_path / "run" / RECORD)
    names = ("abort_chip", "abort_slot", "abort_message", "abort_retry", "abort_settings")
    assert [ds[name].values.tolist() for name in names] == [
        [1], [7], [abort.message], [2], [abort.settings]
    ]  # fmt: skip
    assert ds["status"].values.tolist() == [Status.OK] * 3


_SCRIPT = """
import sys
from spicenn.learning import config
from spicenn.learning.run import learn_chips
learn_chips(config.load(sys.argv[1]), sys.argv[2], workers=2)
"""


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL in mid-run of two workers with ngspice; one worker that is not killed agrees."""
    text = SAMPLED.replace('"controller"', '"circuit"').replace("periods = 12", "periods = 60")
    (tmp_path / "net.toml").write_text(text)
    run = tmp_path / "run"
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "net.toml"), str(run)]
    process = subprocess.Popen(command)
    end = monotonic() + 60
    while len(list(run.glob("chips/*/*.npz"))) < 12 and monotonic() < end:
        assert process.poll() is None, "the run ended before it could be killed"
        sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not (run / RECORD).exists()
    plan = plan_of(text)
    rest = learn_chips(plan, run, workers=2)
    assert 60 <= rest.resumed < 360
    whole = learn_chips(plan, tmp_path / "whole", workers=1)
    for name in ("value", "output"):
        np.testing.assert_array_equal(rest.ds[name], whole.ds[name])


def test_a_record_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no record"):
        open_record(tmp_path / "absent")
    with pytest.raises(StoreError, match="not a readable record"):
        open_record(tmp_path)
    ds = learn_chips(plan_of(TWO_TASKS.replace("12", "1")), tmp_path / "run").ds
    save_record(ds.assign_attrs(learning=99), tmp_path / "later.zarr")
    with pytest.raises(StoreError, match="no record of learning of schema 1"):
        open_record(tmp_path / "later.zarr")
    with pytest.raises(StoreError, match="cannot be written"):
        save_record(ds, Path("/proc/nothing/here.zarr"))


def test_the_fast_path_is_resumed_and_keeps_its_network(tmp_path: Path) -> None:
    """Two epochs and two more are four; the network file is what was trained."""
    from spicenn.learning.resistive import ResistiveNetwork

    plans = [config.parse(FAST.replace("epochs = 2", f"epochs = {n}")) for n in (2, 4)]
    two, four = (plan for plan in plans if isinstance(plan, FastPlan))
    train_fast(two, tmp_path / "run")
    rest = train_fast(four, tmp_path / "run")
    assert rest.resumed == 2
    whole = train_fast(four, tmp_path / "whole")
    kept = ResistiveNetwork.load(tmp_path / "run" / NETWORK)
    for one, two_, three in zip(
        rest.network.conductances, whole.network.conductances, kept.conductances, strict=True
    ):
        np.testing.assert_array_equal(one, two_)
        np.testing.assert_array_equal(one, three)
