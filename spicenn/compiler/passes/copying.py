"""A copy of the user's model to work on: in eval mode, on the CPU, weights plain."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from spicenn.errors import CompileError, InputError


def eval_copy(model: object) -> nn.Module:
    """Return a copy of a module or exported program; the original stays as it is.

    Raises InputError for anything else, CompileError where the copy cannot be made.
    """
    if isinstance(model, torch.export.ExportedProgram):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = model.module()
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            f"the model is a {type(model).__name__}",
            remedy="give a torch.nn.Module (before torch.jit.script) or an ExportedProgram",
        )
    # A weight computed by a hook (the older weight_norm) is no leaf, which deepcopy refuses.
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            copied = copy.deepcopy(model, memo).cpu().eval()
            _unhook(copied)
            return copied.requires_grad_(False)
        except Exception as error:
            # Any attribute of the user's module may refuse in its own way.
            raise CompileError(
                f"the model cannot be copied: {error}",
                where=type(model).__name__,
                remedy="it must have its weights, and nothing that copy.deepcopy refuses",
            ) from error


def _unhook(model: nn.Module) -> None:
    """Make weights that hooks compute before each call plain parameters."""
    for module in model.modules():
        for hook in tuple(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                nn.utils.remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                nn.utils.remove_spectral_norm(module, hook.name)
