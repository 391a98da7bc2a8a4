"""Names of modules that torch can trace, and the user's own in their place afterwards.

torch writes the names of modules into the Python text of a trace, quotes and line
breaks included: what is no plain text there would be read as code.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from spicenn.errors import CompileError


def make_safe(model: nn.Module) -> dict[str, str]:
    """Rename modules in place where torch could misread their names.

    Returns the user's path of every renamed module by its new path. Raises
    CompileError for a parameter or buffer of such a name.
    """
    old_paths: dict[str, str] = {}
    _walk(model, "", "", old_paths)
    return old_paths


def _walk(module: nn.Module, new: str, old: str, old_paths: dict[str, str]) -> None:
    for name in (*module._parameters, *module._buffers):
        if not _is_safe(name):
            raise CompileError(
                f"torch cannot trace a parameter called {name!r}",
                where=f"module {old!r}",
                remedy="rename it without dots, quotes, backslashes and control characters",
            )
    children = dict(module._modules)
    module._modules.clear()
    for position, (name, child) in enumerate(children.items()):
        safe = name
        if not _is_safe(name):
            safe = f"renamed_{position}"
            while safe in children:
                safe += "_"
            # A forward that asks for the attribute by its old name still finds it.
            module.__dict__[name] = child
        module._modules[safe] = child
        new_path, old_path = _join(new, safe), _join(old, name)
        if new_path != old_path:
            old_paths[new_path] = old_path
        if child is not None:
            _walk(child, new_path, old_path, old_paths)


def original(path: str, old_paths: Mapping[str, str]) -> str:
    """Return the user's path of a module or parameter."""
    head = path
    while head:
        if head in old_paths:
            return old_paths[head] + path[len(head) :]
        head = head.rpartition(".")[0]
    return path


def _is_safe(name: str) -> bool:
    return name.isprintable() and not set(name) & set("\"'\\.")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
