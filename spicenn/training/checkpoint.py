"""What a training run leaves behind: a checkpoint now and then, and a log one can plot."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from spicenn.errors import TrainingError

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"

_SCHEMA = 1
_COUNTERS = ("step", "total", "hits", "count", "loss", "seconds")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One line of the log.

    epoch : from 1. step : optimiser's steps so far.
    loss, accuracy : mean over the epoch's samples, each as it was trained with (noise and all);
        the penalty is part of the loss. Accuracy is None without classes.
    validation_loss, validation_accuracy : in ``eval()`` after the epoch, without the penalty.
    seconds : spent on the run so far, in all its sittings.
    """

    epoch: int
    step: int
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is: ``step`` of ``steps`` of the epoch under way, from 1, and its loss."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


def read_log(path: str | Path) -> tuple[Epoch, ...]:
    """Read a run's log: a file of JSON lines, or the directory that has it.

    Raises TrainingError for a file that is none.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    names = {field.name for field in fields(Epoch)}
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
        if not all(isinstance(row, dict) and set(row) == names for row in rows):
            raise ValueError("lines without an epoch's numbers")
    except (OSError, ValueError) as error:
        raise TrainingError(f"is no log of a training run: {error}", where=str(path)) from error
    return tuple(Epoch(**row) for row in rows)


class Tally:
    """Where a run is: epochs done, steps and sums of the one under way, seconds in all."""

    def __init__(self) -> None:
        self.log: list[Epoch] = []
        self.step = self.total = self.hits = self.count = 0
        self.loss = self.seconds = 0.0

    def add(self, loss: float, hits: int, count: int) -> None:
        """Count a step of so many samples."""
        self.step, self.total = self.step + 1, self.total + 1
        self.loss, self.hits, self.count = (
            self.loss + loss * count, self.hits + hits, self.count + count,
        )  # fmt: skip

    def close(
        self,
        epoch: int,
        seen: tuple[float | None, float | None],
        hits: int | None,
        seconds: float,
    ) -> None:
        """End an epoch; seen : loss and accuracy of the validation."""
        self.log.append(
            Epoch(
                epoch=epoch,
                step=self.total,
                loss=self.loss / self.count,
                accuracy=None if hits is None else hits / self.count,
                validation_loss=seen[0],
                validation_accuracy=seen[1],
                seconds=seconds,
            )
        )
        self.step = self.hits = self.count = 0
        self.loss = 0.0


def write_checkpoint(
    folder: Path,
    kind: str,
    described: Mapping[str, str],
    tally: Tally,
    content: Mapping[str, Any],
) -> None:
    """Keep a run's state and log, either of them whole at any time.

    Parameters
    ----------
    kind : of run; another kind does not read it.
    described : what makes the run what it is, by name.
    content : what else changes from step to step, of types that ``weights_only`` reads.

    Raises TrainingError where it cannot be written.
    """
    kept = {
        "spicenn": _SCHEMA,
        "kind": kind,
        "configuration": dict(described),
        **content,
        "counters": {name: getattr(tally, name) for name in _COUNTERS},
        "log": [asdict(epoch) for epoch in tally.log],
    }
    lines = "".join(json.dumps(asdict(epoch)) + "\n" for epoch in tally.log)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / CHECKPOINT, lambda path: torch.save(kept, path))
        _replace(folder / LOG, lambda path: path.write_text(lines, "utf-8"))
    except OSError as error:
        raise TrainingError(
            f"the checkpoint cannot be written: {error.strerror}", where=str(folder)
        ) from error


def read_checkpoint(
    folder: Path, kind: str, described: Mapping[str, str], tally: Tally, epochs: int
) -> dict[str, Any] | None:
    """Put a tally where the folder's checkpoint says it was, and return what else it holds.

    None is no checkpoint. Raises TrainingError for one of another kind or configuration, or
    of more epochs than are asked for.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    where = str(folder)
    remedy = "give another directory, or remove this one to start anew"
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if content["spicenn"] != _SCHEMA or content["kind"] != kind:
            raise ValueError("it is of another kind")
        known = content["configuration"]
        log = [Epoch(**row) for row in content["log"]]
        counters = {name: content["counters"][name] for name in _COUNTERS}
    except Exception as error:  # torch raises many kinds, all of them "not such a file"
        raise TrainingError(
            f"checkpoint.pt is no checkpoint: {type(error).__name__}", where=where, remedy=remedy
        ) from error
    differing = sorted(
        name for name in {*known, *described} if known.get(name) != described.get(name)
    )
    if differing:
        raise TrainingError(
            f"holds a run that differs in {', '.join(differing)}", where=where, remedy=remedy
        )
    if len(log) > epochs or (len(log) == epochs and counters["step"]):
        raise TrainingError(
            f"holds {len(log)} epochs already, {epochs} are asked for", where=where, remedy=remedy
        )
    tally.log = log
    for name, value in counters.items():
        setattr(tally, name, value)
    return content


def digest_of(*tensors: torch.Tensor) -> str:
    """Return a digest of tensors' types, shapes and values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside another and put it in its place, which is whole at any time."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
