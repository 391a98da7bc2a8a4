"""Arguments of the public functions: checked by name, and brought to one shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from spicenn.arrays import is_tensor, namespace
from spicenn.errors import InputError

# In place of v: an argument that nobody can pass by mistake.
NO_SAMPLES: Any = object()


@dataclass(frozen=True, eq=False)
class Arrays:
    """Arguments as the solvers take them, and the shape that the answer gets back.

    g : (chip, wordline, bitline). v : (chip or 1, sample, wordline), or None. r_wordline,
    r_bitline : (chip or 1, wordline or 1, bitline or 1). parameters : of the cells,
    each (chip, wordline, bitline). All NumPy arrays or all tensors, float64.
    batch : leading axes of the answer, with the sample axis where there is one.
    """

    g: Any
    v: Any
    r_wordline: Any
    r_bitline: Any
    batch: tuple[int, ...]
    parameters: Mapping[str, Any]


def arrays(
    g: Any,
    v: Any,
    r_wordline: Any,
    r_bitline: Any,
    parameters: Mapping[str, Any] | None = None,
) -> Arrays:
    """Check and broadcast. Raises InputError that names the argument.

    v may be ``NO_SAMPLES``, where the arrays alone are asked for.
    """
    labels = {name: f"parameters[{name!r}]" for name in parameters or {}}
    given = {"g": g, "v": v, "r_wordline": r_wordline, "r_bitline": r_bitline}
    given |= {labels[name]: x for name, x in (parameters or {}).items()}
    known = _alike({name: x for name, x in given.items() if x is not NO_SAMPLES})
    g = known["g"]
    if g.ndim < 2 or 0 in g.shape:
        raise InputError(f"g has shape {tuple(g.shape)}, expected (…, wordline, bitline)")
    lines = tuple(g.shape[-2:])
    single = v is NO_SAMPLES
    if v is not NO_SAMPLES:
        v = known["v"]
        if v.ndim < 1 or v.shape[-1] != lines[0] or 0 in v.shape:
            raise InputError(
                f"v has shape {tuple(v.shape)}, expected (…, sample, wordline) with "
                f"{lines[0]} wordlines as g of shape {tuple(g.shape)}"
            )
        if v.ndim == 1:
            single, known["v"] = True, v.reshape(1, -1)
    for name in ("r_wordline", "r_bitline"):
        r = known[name]
        known[name] = r = r.reshape((1,) * (2 - r.ndim) + tuple(r.shape)) if r.ndim < 2 else r
        if 0 in r.shape or r.shape[-2] not in (1, lines[0]) or r.shape[-1] not in (1, lines[1]):
            raise InputError(
                f"{name} has shape {tuple(r.shape)}, expected one value or one per segment, "
                f"(…, {lines[0]}, {lines[1]})"
            )
    for name in labels.values():
        known[name] = _of_cells(name, known[name], lines)
    _check_values(known)
    leads = {name: tuple(x.shape[:-2]) for name, x in known.items()}
    try:
        batch = np.broadcast_shapes(*leads.values())
    except ValueError:
        told = ", ".join(f"{name} {lead}" for name, lead in leads.items())
        raise InputError(f"the leading axes do not broadcast: {told}") from None
    answer = batch if single else (*batch, known["v"].shape[-2])
    if all(math.prod(lead) == 1 for name, lead in leads.items() if name != "v"):
        # One array: whatever else v has is samples.
        flat = {name: x.reshape(1, *x.shape[-2:]) for name, x in known.items() if name != "v"}
        if v is not NO_SAMPLES:
            flat["v"] = known["v"].reshape(1, -1, lines[0])
    else:
        own = {"g", *labels.values()}
        flat = {name: _flat(x, batch, shared=name not in own) for name, x in known.items()}
    of_cells = {name: flat[label] for name, label in labels.items()}
    return Arrays(flat["g"], flat.get("v"), flat["r_wordline"], flat["r_bitline"], answer, of_cells)


def _of_cells(name: str, x: Any, lines: tuple[int, ...]) -> Any:
    """A parameter as (…, wordline, bitline)."""
    last = tuple(x.shape[-2:])
    last = (1,) * (2 - len(last)) + last
    if any(length not in (1, line) for length, line in zip(last, lines, strict=True)):
        raise InputError(
            f"{name} has shape {tuple(x.shape)}, expected one value or one per cell, "
            f"(…, {lines[0]}, {lines[1]})"
        )
    return namespace(x).broadcast_to(x, (*x.shape[:-2], *lines))


def _flat(x: Any, batch: tuple[int, ...], *, shared: bool) -> Any:
    """One leading axis in place of all; of length 1 where all chips may share x and do."""
    last = x.shape[-2:]
    if shared and math.prod(x.shape[:-2]) == 1:
        return x.reshape(1, *last)
    return namespace(x).broadcast_to(x, (*batch, *last)).reshape(-1, *last)


def tolerance(rtol: Any) -> float:
    """Check rtol; raises InputError."""
    if not (is_real(rtol) and 0 < rtol < 1):
        raise InputError(f"rtol = {rtol!r} is not between 0 and 1")
    return float(rtol)


def is_real(value: Any) -> bool:
    """True for a real number, Python's or NumPy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


def checked_law(law: Any) -> Any:
    """Return a law or None as it is. Raises InputError for what is neither."""
    functions = ("current", "slope", "sensitivity")
    if law is None or (
        not isinstance(law, type) and all(callable(getattr(law, name, None)) for name in functions)
    ):
        return law
    raise InputError(
        f"law = {law!r} is not a law",
        remedy="pass an object with current, slope and sensitivity, e.g. spicenn.kirchhoff.Sinh()",
    )


def _alike(given: dict[str, Any]) -> dict[str, Any]:
    """All as float64, as tensors of one device where any of them is one."""
    tensors = {name: x for name, x in given.items() if is_tensor(x)}
    if not tensors:
        return {name: _array(name, x) for name, x in given.items()}
    torch = namespace(next(iter(tensors.values())))
    devices = {str(x.device): name for name, x in tensors.items()}
    if len(devices) > 1:
        told = ", ".join(f"{name} on {device}" for device, name in devices.items())
        raise InputError(f"tensors are on several devices: {told}")
    device = next(iter(tensors.values())).device
    result = {}
    for name, x in given.items():
        if not is_tensor(x):
            result[name] = torch.as_tensor(np.ascontiguousarray(_array(name, x)), device=device)
        elif x.layout != torch.strided:
            raise InputError(f"{name} is a sparse tensor", remedy=f"pass {name}.to_dense()")
        elif x.is_meta:
            raise InputError(f"{name} holds no values, it is on the meta device")
        elif x.is_complex():
            raise InputError(f"{name} is complex; conductances and voltages are real")
        else:
            result[name] = x.to(torch.float64)
    return result


def _array(name: str, x: Any) -> Any:
    if x is None:
        raise InputError(f"{name} is None")
    try:
        array = np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{name} is no array: {error}") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64, copy=False)


def _check_values(known: dict[str, Any]) -> None:
    inf = math.inf
    bounds = {"g": (0.0, inf, "finite and at least 0"), "v": (-inf, inf, "finite")}
    for name, value in known.items():
        x = value.detach() if is_tensor(value) else value
        kind = "v" if name.startswith("parameters") else name
        low, high, wanted = bounds.get(kind, (0.0, None, "at least 0"))
        least, most = float(x.min()), float(x.max())  # NaN where there is one
        # g may be 0 and a wire infinite; voltages and parameters lie inside their bounds.
        if (least >= low if low == 0 else least > low) and (high is None or most < high):
            continue
        array = _to_numpy(x)
        bad = ~((array >= low if low == 0 else array > low) & (high is None or array < high))
        at = np.argwhere(bad)
        first = tuple(int(i) for i in at[0])
        raise InputError(
            f"{name} holds {float(array[first])!r} at {first}: "
            f"{len(at)} of {array.size} values are not {wanted}"
        )


def _to_numpy(x: Any) -> Any:
    return x.detach().cpu().numpy() if is_tensor(x) else x
