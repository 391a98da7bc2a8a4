"""The compiled answer to ngspice's question for an external source's level; needs numba."""

from __future__ import annotations

from typing import Any

from numba import carray, cfunc  # type: ignore[attr-defined]

_SIGNATURE = "int32(CPointer(float64), float64, CPointer(uint8), int32, CPointer(float64))"


@cfunc(_SIGNATURE, cache=True)
def answer(value: Any, time: Any, name: Any, _ident: Any, user: Any) -> Any:
    """Set the level of the source of this name, from the memory that ``levels`` describes."""
    head = carray(user, 3)
    count, width = int(head[0]), int(head[1])
    table = carray(user, 3 + count * (width + 4))
    asked = carray(name, width)
    told = carray(value, 1)
    for turn in range(1, count + 1):
        k = (int(head[2]) + turn) % count  # ngspice asks for one after the other
        letters = 3 + k * width
        j = 0
        while asked[j] != 0 and table[letters + j] == asked[j]:
            j += 1
        if table[letters + j] == asked[j]:
            head[2] = k
            slope = 3 + count * width + 4 * k
            start, before = table[slope], table[slope + 1]
            end, after = table[slope + 2], table[slope + 3]
            if time >= end:
                told[0] = after
            elif time <= start:
                told[0] = before
            else:
                told[0] = before + (after - before) * (time - start) / (end - start)
            return 0
    return 0
