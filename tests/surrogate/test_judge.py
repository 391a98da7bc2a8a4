"""The report of a surrogate: its numbers against their definitions, on real chips."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spicenn.engines.nodal import NodalEngine
from spicenn.engines.superposition import superposed
from spicenn.errors import InputError
from spicenn.surrogate import Surrogate, calibrate, fit
from spicenn.surrogate.judge import (
    Judgement,
    Measurements,
    identified,
    judge,
    measure,
    score,
    spectrum,
)
from spicenn.surrogate.latent import condition
from tests.surrogate.conftest import compiled, dataset, inputs, single_thread

SEED = 8


@pytest.fixture(scope="module")
def measured(surrogate: Surrogate) -> Measurements:
    with single_thread():
        return measure(
            surrogate.design,
            surrogate.design.sample(chips=range(60, 64), seed=SEED),
            inputs(64, 0),
            inputs(80, 7),
            seed=1,
            counts=(16, 0, 8),
            engine="nodal",
            batches=(4,),
            probes=lambda count: inputs(count, count),
        )


@pytest.fixture(scope="module")
def judgement(surrogate: Surrogate, measured: Measurements) -> Judgement:
    with single_thread():
        return score(surrogate, measured, seed=1)


def rms(error: Any) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def test_truth_is_free_of_noise_and_a_read_is_not(
    surrogate: Surrogate, measured: Measurements
) -> None:
    test = inputs(80, 7)
    quiet = surrogate.design.with_technology(read_noise=0.0, bandwidth=0.0)
    for index, reads in zip(range(60, 64), measured.chips, strict=True):
        truth = quiet.sample(index, seed=SEED).run(test, engine="nodal")
        np.testing.assert_allclose(reads.truth, truth, rtol=1e-5, atol=1e-6)
        assert reads.read.shape == reads.truth.shape
        assert rms(reads.read - reads.truth) > 1e-3 * rms(reads.truth)


def test_probes_and_test_inputs_have_noise_of_their_own(
    surrogate: Surrogate, measured: Measurements
) -> None:
    # Had they been read apart, the first probe would share its draw with the first test input.
    same = measure(
        surrogate.design,
        surrogate.design.sample(chips=[60], seed=SEED),
        inputs(64, 0),
        inputs(80, 7),
        seed=1,
        counts=(8,),
        engine="nodal",
        batches=(),
        probes=lambda count: inputs(80, 7)[:count],
    )
    (reads,) = same.chips
    noise = reads.read[:8] - reads.truth[:8], reads.seen[8] - reads.truth[:8]
    assert abs(float(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1])) < 0.6
    assert same.seconds == {}


def test_scores_are_what_they_are_called(
    surrogate: Surrogate, measured: Measurements, judgement: Judgement
) -> None:
    assert [one.probes for one in judgement.scores] == [0, 8, 16]
    test = torch.as_tensor(inputs(80, 7))
    scale = float(np.ptp(measured.nominal))
    modules = [
        calibrate(surrogate, measured.probes[16][0], reads.seen[16], seed=1).module
        for reads in measured.chips
    ]
    errors, reads_off, inside = [], [], []
    for module, reads in zip(modules, measured.chips, strict=True):
        with torch.no_grad():
            own = module(test).numpy().astype(float)
        mean, std, _ = (value.numpy() for value in module.predict(test))
        errors.append(rms(own - reads.truth) / scale)
        reads_off.append(rms(own - reads.read) / scale)
        inside.append(np.mean(np.abs(reads.read - mean) < 1.6449 * std))
    last = judgement.scores[-1]
    assert last.error == pytest.approx(rms(errors), rel=1e-6)
    assert last.worst == pytest.approx(max(errors), rel=1e-6)
    assert last.read_error == pytest.approx(rms(reads_off), rel=1e-6)
    assert last.coverage == pytest.approx(np.mean(inside), abs=1e-3)
    assert judgement.errors[-1] == pytest.approx(errors, rel=1e-6)
    assert last.accepted == 1.0
    population = surrogate.module()
    with torch.no_grad():
        before = population(test).numpy().astype(float)
    raw = [rms(before - reads.truth) / scale for reads in measured.chips]
    assert judgement.errors[0] == pytest.approx(raw, rel=1e-6)


def test_more_probes_know_more(judgement: Judgement) -> None:
    none, few, many = judgement.scores
    assert many.error < few.error < none.error
    assert max(many.stated, few.stated) < none.stated / 3
    assert few.effective < many.effective <= many.parameters
    assert few.halved <= many.halved
    assert np.isnan(none.accepted)
    assert np.isnan(none.effective)
    # What is stated is about what is there.
    assert 0.5 < many.stated / many.error < 2.0
    assert judgement.probes_for(many.error) == 16
    assert judgement.probes_for(none.error) == 0
    assert judgement.probes_for(0.0) is None


def test_identified_are_the_eigenvalues_of_prior_over_noise() -> None:
    # One layer, ideal wires: J is known, and so are its covariances.
    design = compiled(nn.Linear(12, 2), inputs(64, 0), r_wordline=0.0, r_bitline=0.0)
    surrogate = fit(dataset(design, inputs(24, 1)))
    x = inputs(10, 5)
    found = calibrate(surrogate, x, design.sample(5, seed=SEED).run(x, engine="nodal"))
    posterior = found.posterior
    assert posterior is not None
    linear, variance = posterior.linear, surrogate.prior.variance
    kernel = linear.kernel(linear, variance).numpy()
    noise = np.zeros_like(kernel)
    for k in range(10):
        noise[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = posterior.noise[k].numpy()
    expected = np.sort(np.linalg.eigvals(np.linalg.solve(noise, kernel)).real)[::-1]
    values = spectrum(posterior)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6 * expected[0])
    effective, halved, total = identified(posterior)
    # γ is also the trace of prior variance taken away, over the prior's.
    gamma = np.trace(kernel @ np.linalg.inv(kernel + noise))
    assert effective == pytest.approx(gamma, rel=1e-6)
    assert halved == np.sum(expected > 1)
    (prior,) = variance.values()
    assert total == int((prior > 0).sum())
    # Ten probes cannot fix more than ten directions of either output's weights.
    assert effective < 20


def test_identified_of_a_latent_is_what_its_prior_lost() -> None:
    assert np.isnan(identified(None)).all()
    rng = np.random.default_rng(0)
    basis = torch.as_tensor(rng.standard_normal((3, 2, 5)))
    variance = torch.full((3, 2), 0.5, dtype=torch.float64)
    posterior = condition(basis, variance, torch.zeros(3, 2, dtype=torch.float64))
    rows = basis.flatten(0, 1).numpy()
    values = np.linalg.eigvalsh(rows.T @ rows / 0.5)
    effective, halved, total = identified(posterior)
    assert effective == pytest.approx(float((values / (1 + values)).sum()), rel=1e-9)
    assert halved == np.sum(values > 1)
    assert total == 5


def test_another_chips_outputs_make_it_worse_and_a_wrong_order_is_refused(
    surrogate: Surrogate, measured: Measurements, judgement: Judgement
) -> None:
    # Controls through the report itself: chips whose probes were read from their neighbours.
    chips = measured.chips
    moved = replace(
        measured,
        counts=(16,),
        chips=tuple(
            replace(reads, seen=chips[(k + 1) % len(chips)].seen) for k, reads in enumerate(chips)
        ),
    )
    assert score(surrogate, moved, seed=1).scores[0].error > judgement.scores[0].error
    order = np.random.default_rng(0).permutation(16)
    shuffled = replace(
        measured,
        counts=(16,),
        chips=tuple(replace(reads, seen={16: reads.seen[16][order]}) for reads in chips),
    )
    (one,) = score(surrogate, shuffled, seed=1).scores
    assert one.accepted == 0.0
    assert one.error == pytest.approx(judgement.scores[0].error, rel=1e-6)


def test_the_table_and_the_dict_say_the_same(judgement: Judgement) -> None:
    text = str(judgement)
    assert "4 unseen chips in nodal, superposed, 80 unseen inputs, 4 outputs" in text
    rows = text.splitlines()
    assert rows[3].split()[0] == "probes"
    assert rows[5].split()[0] == "0"
    assert f"{100 * judgement.scores[2].error:.3g}" in rows[7]
    assert "batch of 4:" in rows[-1]
    record = json.loads(json.dumps(judgement.to_dict()))
    assert record["scores"][2]["error"] == judgement.scores[2].error
    assert record["timings"][0]["batch"] == 4


def test_times_are_of_one_input_of_the_batch(judgement: Judgement) -> None:
    (timing,) = judgement.timings
    assert timing.batch == 4
    assert 0 < timing.module < 0.1
    assert 0 < timing.engine < 1.0
    assert timing.speedup == timing.engine / timing.module


def test_several_trials_and_judge_in_one_call(surrogate: Surrogate) -> None:
    chips = surrogate.design.sample(chips=[61], seed=SEED)
    found = judge(
        surrogate, chips, inputs(64, 0), inputs(20, 7), seed=1, counts=(8,), trials=3,
        engine="nodal", batches=(),
    )  # fmt: skip
    assert found.chips == 1
    assert found.scores[0].accepted == 1.0
    assert found.timings == ()


@pytest.mark.ngspice
@pytest.mark.slow
def test_ngspice_gives_the_report_of_the_exact_engine(
    surrogate: Surrogate, measured: Measurements
) -> None:
    chips = surrogate.design.sample(chips=[60], seed=SEED)
    there = measure(
        surrogate.design, chips, inputs(64, 0), inputs(80, 7), seed=1, counts=(8,), batches=(8,)
    )
    assert there.engine == "ngspice, superposed"
    np.testing.assert_allclose(there.chips[0].truth, measured.chips[0].truth, rtol=1e-4, atol=1e-5)
    (timing,) = score(surrogate, there, seed=1).timings
    assert timing.speedup > 1.0


def test_what_does_not_fit_is_refused(surrogate: Surrogate) -> None:
    design, x = surrogate.design, inputs(20, 7)
    chips = design.sample(chips=[60], seed=SEED)
    for given, options in (([], {}), (chips, {"counts": ()}), (chips, {"batches": (0,)})):
        with pytest.raises(InputError, match="at least one chip"):
            judge(surrogate, given, x, x, seed=1, engine="nodal", **options)
    with pytest.raises(InputError, match="cannot be timed"):
        judge(surrogate, chips, x, x, seed=1, counts=(0,), engine=superposed(NodalEngine()))
    with pytest.raises(InputError, match="does not fit"):
        judge(surrogate, chips, x, x[:, :3], seed=1, engine="nodal")
