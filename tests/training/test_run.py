"""Training runs: killed and resumed to the last bit, logged, refused where they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.engines import open_engine
from spicenn.errors import InputError, TrainingError
from spicenn.training import Awareness, analog, in_loop
from spicenn.training.penalties import jacobian_penalty
from spicenn.training.pulsed import PulsedSGD
from spicenn.training.residual import StochasticResidual
from spicenn.training.run import CHECKPOINT, LOG, Progress, Run, read_log, train


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(40, 6, generator=rng)
    return x, (x @ torch.randn(6, 3, generator=rng)).argmax(1)


X, Y = _data()


def _model(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
        ).eval()


@pytest.fixture(scope="module")
def design() -> sn.Design:
    tech = sn.Technology.preset("rram-1r").replace(r_wordline=2.0, r_bitline=2.0)
    return sn.compile(_model(), X[:2], technology=tech, calibration=X)


class Killed(Exception):
    """Stands for the end of a process."""


def _killer(after: int) -> Callable[[Progress], None]:
    seen = 0

    def progress(_: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise Killed

    return progress


def _noisy(design: sn.Design) -> nn.Module:
    return analog(_model(), design, awareness=Awareness(clip=2.5), seed=3)


def _population(design: sn.Design) -> nn.Module:
    known = Awareness(chips=3, wires="ladder", ranges="learn")
    return analog(_model(), design, awareness=known, seed=3)


def _with_dropout_and_residual(design: sn.Design) -> nn.Module:
    net = analog(_model(0.3), design, seed=3)
    net[1] = StochasticResidual(nn.ReLU(), features=8, seed=5)  # type: ignore[operator]
    return net


def _everything(net: nn.Module, run: Run) -> dict[str, Any]:
    tensors = {**net.state_dict(), **dict(net.named_buffers())}
    return tensors | {"log": [replace(epoch, seconds=0.0) for epoch in run.log]}


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(
        torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
        for name, value in one.items()
    )


@pytest.mark.parametrize("build", [_noisy, _population, _with_dropout_and_residual])
@pytest.mark.parametrize("kills", [(3,), (1, 9, 2)])
def test_a_killed_run_ends_as_an_unbroken_one(
    design: sn.Design, tmp_path: Path, build: Any, kills: tuple[int, ...]
) -> None:
    """Weights, ranges, noise and log are the same to the last bit, wherever it was killed.

    With checkpoints inside epochs, and networks built anew each time; a run that keeps no
    checkpoint is the same, too.
    """

    def go_on(folder: Path | None, progress: Any = None) -> tuple[nn.Module, Run]:
        net = build(design)
        run = train(
            net, X, Y, epochs=3, batch=8, rate=1e-2, seed=1, validation=(X[:10], Y[:10]),
            directory=folder, save_every=2, progress=progress,
        )  # fmt: skip
        return net, run

    unbroken = _everything(*go_on(tmp_path / "unbroken"))
    for after in kills:
        with pytest.raises(Killed):
            go_on(tmp_path / "killed", _killer(after))
    net, run = go_on(tmp_path / "killed")
    assert 0 <= run.resumed < 15
    assert _same(_everything(net, run), unbroken)
    assert _same(_everything(*go_on(None)), unbroken)
    assert not _same(_everything(build(design), run), unbroken)


def test_a_pulsed_run_goes_on_too(design: sn.Design, tmp_path: Path) -> None:
    """The optimiser's cells, wear and rounding are part of the checkpoint."""

    def go_on(folder: Path, progress: Any = None) -> nn.Module:
        net = _noisy(design)
        cells = PulsedSGD(net.parameters(), lr=0.1, step=0.005, spread_step=0.3, seed=2)
        train(net, X, Y, epochs=2, batch=8, seed=1, optimiser=cells, directory=folder,
              progress=progress)  # fmt: skip
        return net

    unbroken = go_on(tmp_path / "unbroken")
    with pytest.raises(Killed):
        go_on(tmp_path / "killed", _killer(7))
    net = go_on(tmp_path / "killed")
    for a, b in zip(net.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_on_a_chip_goes_on_with_its_next_read(design: sn.Design, tmp_path: Path) -> None:
    """In the loop every pass is another read of the chip; a resumed run goes on counting."""

    def go_on(folder: Path, progress: Any = None) -> tuple[nn.Module, Run]:
        net = analog(_model(), design, awareness=Awareness(ranges="fixed"), seed=3)
        with open_engine("nodal") as engine:
            loop = in_loop(net, design.sample(4, 2), engine)
            run = train(loop, X[:16], Y[:16], epochs=2, batch=8, seed=1, directory=folder,
                        progress=progress)  # fmt: skip
            assert loop.passes == 4
        return net, run

    unbroken = _everything(*go_on(tmp_path / "unbroken"))
    with pytest.raises(Killed):
        go_on(tmp_path / "killed", _killer(3))
    assert _same(_everything(*go_on(tmp_path / "killed")), unbroken)


def test_it_learns_and_its_log_says_so(tmp_path: Path) -> None:
    """A separable problem is learnt; the log is read back, as JSON lines, with what happened."""
    seen: list[Progress] = []
    run = train(
        _model(), X, Y, epochs=60, batch=16, rate=2e-2, seed=1, validation=(X, Y),
        directory=tmp_path, progress=seen.append,
    )  # fmt: skip
    last = run.log[-1]
    assert last.accuracy is not None
    assert last.accuracy >= 0.95
    assert last.loss < 0.5 * run.log[0].loss
    assert (last.epoch, last.step, len(seen)) == (60, 180, 180)
    assert (seen[-1].epoch, seen[-1].epochs, seen[-1].step, seen[-1].steps) == (60, 60, 3, 3)
    assert read_log(tmp_path) == read_log(tmp_path / LOG) == run.log
    row = json.loads((tmp_path / LOG).read_text().splitlines()[0])
    assert row["validation_accuracy"] == run.log[0].validation_accuracy
    (tmp_path / LOG).write_text("{}\n")
    with pytest.raises(TrainingError, match="no log"):
        read_log(tmp_path)


def test_validation_is_the_network_in_eval_and_the_penalty_is_in_the_loss() -> None:
    net = _model(0.5)
    run = train(
        net, X, Y, epochs=1, batch=40, rate=1e-12, seed=0, validation=(X, Y),
        penalty=lambda net, x: 0.5 * jacobian_penalty(net.eval(), x),
    )  # fmt: skip
    net.eval()
    plain = float(nn.functional.cross_entropy(net(X), Y).detach())
    assert run.log[0].validation_loss == pytest.approx(plain, rel=1e-5)
    net.train()
    assert run.log[0].loss != pytest.approx(plain, rel=1e-2)


def test_floats_are_fitted_by_mean_squares() -> None:
    target = X @ torch.ones(6, 3)
    net = _model()
    first = float(nn.functional.mse_loss(net(X), target).detach())
    run = train(net, X, target, epochs=1, batch=40, rate=1e-3, seed=0)
    assert run.log[0].loss == pytest.approx(first, rel=1e-5)
    assert run.log[0].accuracy is None


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    """Each of data, labels, validation, network, optimiser, batch, seed and the caller's own."""
    base: dict[str, Any] = {"epochs": 1, "seed": 1, "batch": 8, "configuration": {"a": 1}}
    train(_model(), X, Y, directory=tmp_path, **base)
    before = (tmp_path / CHECKPOINT).read_bytes()
    wider = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    for net, x, y, changed, words in (
        (_model(), X + 1, Y, {}, "differs in data"),
        (_model(), X, 2 - Y, {}, "differs in labels"),
        (wider, X, Y, {}, "network"),
        (_model(), X, Y, {"rate": 0.1}, "optimiser"),
        (_model(), X, Y, {"batch": 4, "seed": 2}, "batch, seed"),
        (_model(), X, Y, {"validation": (X, Y)}, "validation"),
        (_model(), X, Y, {"penalty": jacobian_penalty}, "penalty"),
        (_model(), X, Y, {"configuration": {"a": 2}}, r"configuration\.a"),
    ):
        with pytest.raises(TrainingError, match=words):
            train(net, x, y, directory=tmp_path, **{**base, **changed})
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CHECKPOINT, LOG]


def test_more_epochs_go_on_and_fewer_are_refused(tmp_path: Path) -> None:
    whole = _model()
    train(whole, X, Y, epochs=3, seed=1, batch=8)
    for epochs in (1, 3):
        net = _model()
        run = train(net, X, Y, epochs=epochs, seed=1, batch=8, directory=tmp_path)
    assert run.resumed == 5
    for a, b in zip(whole.parameters(), net.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(TrainingError, match="3 epochs already"):
        train(_model(), X, Y, epochs=2, seed=1, batch=8, directory=tmp_path)


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        torch.save({"spicenn": 1, "kind": "module"}, tmp_path / CHECKPOINT)
    else:
        (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingError, match="no checkpoint"):
        train(_model(), X, Y, epochs=1, seed=1, directory=tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower the rate"):
        train(_model(), X, Y.float()[:, None].expand(-1, 3) * 1e30, epochs=5, batch=8, seed=1,
              directory=tmp_path)  # fmt: skip
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["counters"]["total"] == 0


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        (X, Y[:-1], {}, "as many labels"),
        (X[:0], Y[:0], {}, "at least one"),
        (X, Y - 1, {}, "classes"),
        (X, Y + 1, {}, "class 3"),
        (X, Y.float(), {}, "results' shape"),
        (X, Y, {"validation": (X, X)}, "both"),
        (X, Y, {"epochs": 0}, "epochs"),
        (X, Y, {"batch": 0}, "batch"),
        (X, Y, {"save_every": -1}, "save_every"),
        (X, Y, {"seed": -1}, "seed"),
    ],
)
def test_what_does_not_fit_is_refused(
    x: torch.Tensor, y: torch.Tensor, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        train(_model(), x, y, **{"epochs": 1, "seed": 1, **options})
