"""Where in the user's model a call or a failure comes from."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spicenn.compiler.passes.graph import location
from spicenn.compiler.passes.rename import original
from spicenn.errors import CompileError

# How torch says that a length cannot vary; the last is a program exported with a fixed one.
_FIXED_BATCH = ("specialized it to be a constant", "Constraints violated", "Guard failed")
_FRAME = re.compile(r'File "(.+?)", line (\d+)')
# Code of these places is not the user's; installed packages may be.
_FOREIGN = (f"{Path(torch.__file__).parent}/", f"{Path(__file__).parents[1]}/")
_STDLIB, _SITE = (f"{sysconfig.get_paths()[key]}/" for key in ("stdlib", "purelib"))


@dataclass(frozen=True)
class Origin:
    """Module path and source line of one call."""

    module: str
    source: str

    @classmethod
    def of(cls, node: Any) -> Origin:
        """Read what the trace noted."""
        stack = node.meta.get("nn_module_stack") or {}
        paths = [str(path) for path, _ in stack.values()]
        # A module called again carries a counter: "fc@1".
        module = re.sub(r"@\d+", "", paths[-1]) if paths else ""
        if module.startswith("_empty_nn_module_stack"):
            module = ""
        frames = _FRAME.findall(node.meta.get("stack_trace") or "")
        return cls(module, innermost_line((file, int(line)) for file, line in frames))


def innermost_line(frames: Iterable[tuple[str, int]]) -> str:
    """Return "file:line" of the user's innermost frame, "" where there is none."""
    lines = [f"{file}:{line}" for file, line in frames if _is_users(file)]
    return lines[-1] if lines else ""


def _is_users(file: str) -> bool:
    if file.startswith(("<", *_FOREIGN)):
        return False
    return file.startswith(_SITE) or not file.startswith(_STDLIB)


def failure(
    error: Exception,
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    renamed: Mapping[str, str],
) -> CompileError:
    """Turn what torch.export raised into an error that names module and line."""
    text = str(error).strip()
    where = _place(error, model, renamed)
    if any(mark in text for mark in _FIXED_BATCH):
        # The trace went through and was refused as a whole; one more sample shows where.
        more = _run_with_one_more(model, inputs)
        return CompileError(
            "the model works for one number of samples only",
            where=where if more is None else _place(more, model, renamed),
            remedy="use x.shape[0] or -1 instead of a number in reshape, view and expand, and "
            "export with a dynamic first axis",
        )
    if "data-dependent" in text or "DataDependent" in type(error).__name__:
        return CompileError(
            "control flow or a shape depends on the data",
            where=where,
            remedy="a chip is one fixed circuit: use torch.where instead of if",
        )
    first = text.split("\n")[0][:300] or type(error).__name__
    return CompileError(
        f"cannot be run and traced: {first}",
        where=where,
        remedy="does the model run on the example, and does torch.export take it?",
    )


def _run_with_one_more(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Exception | None:
    try:
        model(*(torch.cat([x, x[:1]]) for x in inputs))
    except Exception as error:
        return error
    return None


def _place(error: Exception, model: nn.Module, renamed: Mapping[str, str]) -> str:
    """Read module and line off the frames that an exception went through."""
    paths = {id(module): original(path, renamed) for path, module in model.named_modules()}
    frames: list[tuple[str, int]] = []
    module = ""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        frames.append((frame.f_code.co_filename, trace.tb_lineno))
        module = paths.get(id(frame.f_locals.get("self")), module)
        trace = trace.tb_next
    return location(module, innermost_line(frames))
