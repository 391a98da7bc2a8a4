"""Parameters of commands as typed values: tiles, technologies, quantities, sweeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from spicenn.compiler import Tile
    from spicenn.technology import Technology

    _Type = click.ParamType[Any]
else:  # generic only since click 8.4
    _Type = click.ParamType

FILE = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)


class TileType(_Type):
    """``128x128``: wordlines x bitlines."""

    name = "WORDLINESxBITLINES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tile:
        from spicenn.compiler import Tile
        from spicenn.errors import InputError

        if isinstance(value, Tile):
            return value
        match = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", value)
        if match is None:
            self.fail(f"{value!r} is not a size; write for example 128x128", param, ctx)
        try:
            return Tile(wordlines=int(match[1]), bitlines=int(match[2]))
        except InputError as error:
            self.fail(str(error), param, ctx)


class TechnologyType(_Type):
    """Name of a preset, or path of a TOML file."""

    name = "PRESET|FILE.toml"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Technology:
        from spicenn.technology import Technology

        if isinstance(value, Technology):
            return value
        if value.endswith(".toml"):
            given = ctx.params if ctx is not None else {}
            return Technology.from_toml(
                value,
                allow_include=given.get("allow_include", ()),
                trust_model=given.get("trust_model", False),
            )
        if value not in Technology.presets():
            self.fail(
                f"there is no preset {value!r}; there are {', '.join(Technology.presets())}, "
                "or give a .toml file",
                param,
                ctx,
            )
        return Technology.preset(value)


class QuantityType(_Type):
    """A number with an optional engineering suffix, e.g. 100u, 2k, 1meg."""

    name = "QUANTITY"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from spicenn.errors import InputError
        from spicenn.technology import parse_quantity

        try:
            return parse_quantity(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


class SweepType(_Type):
    """``key=value,value,…``: one technology key and the values it takes."""

    name = "KEY=VALUE,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[float | str, ...]]:
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        words = [word.strip() for word in rest.split(",")]
        if not equals or not key or not all(words):
            self.fail(f"{value!r} is not a sweep; write for example r_wordline=0,2,5", param, ctx)
        from spicenn.technology.units import UNITS

        if UNITS.get(key) == "":  # a key of words
            return key, tuple(words)
        quantity = QuantityType()
        return key, tuple(quantity.convert(word, param, ctx) for word in words)


TILE = TileType()
TECHNOLOGY = TechnologyType()
SWEEP = SweepType()
QUANTITY = QuantityType()


def sweeps(
    ctx: click.Context, param: click.Parameter, value: tuple[tuple[str, tuple[Any, ...]], ...]
) -> dict[str, tuple[Any, ...]] | None:
    """Join repeated --sweep options; one key may come once."""
    joined = dict(value)
    if len(joined) < len(value):
        raise click.BadParameter("a key is swept twice", ctx, param)
    return joined or None
