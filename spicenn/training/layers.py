"""Linear maps and convolutions that compute in ``train()`` as their tiles would.

A subclass of torch's own layer each, with its parameters under their names. What the tiles
do is added around torch's own product: inputs are driven within a range and in steps,
weights are attenuated and off their targets, currents fluctuate and are converted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spicenn.compiler.converter import resolution
from spicenn.compiler.convolution import fold, kernel, multiply, unfold
from spicenn.compiler.layer import Layer
from spicenn.errors import TrainingError
from spicenn.training.awareness import Awareness
from spicenn.training.converters import with_errors
from spicenn.training.draws import Draws
from spicenn.training.partial import partial_sums
from spicenn.training.physics import Part, Pattern, Physics
from spicenn.training.quantise import converted, quantised, rounded
from spicenn.training.wiring import Wiring

# How fast a tracked range forgets, per pass.
_MEMORY = 0.99
# A shift below this part of the largest weight is rounding.
_NOTHING = 1e-6

# Results of a layer for its inputs, as a chip gives them.
Runner = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """An ``Awareness`` as one layer needs it: numbers in the place of "hardware".

    weight_noise, read_noise : one standard deviation for all weights, None where each has
        its own, 0 for none.
    weight_levels, input_levels, output_levels : steps of a magnitude, None without steps.
    """

    weight_noise: float | None
    read_noise: float | None
    clip: float | None
    weight_levels: int | None
    input_levels: int | None
    output_levels: int | None
    ranges: str


def settings_of(awareness: Awareness, physics: Physics) -> Settings:
    """Look the hardware's values up."""
    mapping, layer = physics.design.mapping, physics.layer
    bits = awareness.input_bits
    bits = mapping.input_bits if bits == "hardware" else bits
    outputs = awareness.output_bits
    outputs = mapping.adc_bits if outputs == "hardware" else outputs
    weights = awareness.weight_bits

    def noise(value: Any) -> float | None:
        return None if value == "hardware" else float(value or 0.0)

    return Settings(
        weight_noise=0.0 if awareness.chips else noise(awareness.weight_noise),
        read_noise=noise(awareness.read_noise),
        clip=awareness.clip,
        weight_levels=mapping.weight_levels
        if weights == "hardware"
        else None
        if weights is None
        else 2 ** (weights - 1) - 1,
        input_levels=None
        if bits is None
        else resolution(bits, layer, physics.design.technology)[1],
        output_levels=None if outputs is None else 2 ** (outputs - 1) - 1,
        ranges=awareness.ranges,
    )


class Analog(nn.Module):
    """What the analog layers have in common; each is also one of torch's own.

    Attributes
    ----------
    physics : the layer's hardware. settings : how much of it counts. draws : its noise.
    input_range : magnitude of an input at full scale, in the model's units; a parameter
        where ranges are learnt, else a buffer.
    output_range : full scale of a tile's converter, over the largest weight and the input
        range.
    runner : where set, gives the values; gradients are this layer's.
    distortion : factor on every weight as gradients see it, None for 1.
    """

    weight: torch.Tensor
    bias: Any  # a parameter or None, which torch's own layers declare each in its way
    input_range: torch.Tensor
    output_range: torch.Tensor
    physics: Physics
    awareness: Awareness
    settings: Settings
    draws: Draws
    wiring: Wiring
    runner: Runner | None
    distortion: torch.Tensor | None

    def attach(self, physics: Physics, awareness: Awareness, draws: Draws) -> None:
        """Set the layer up; its parameters are there already."""
        self.awareness, self.draws = awareness, draws
        self.settings = settings_of(awareness, physics)
        self.runner = self.distortion = None
        like = self.weight
        layer = physics.layer
        scale = torch.tensor(layer.input_scale, dtype=like.dtype, device=like.device)
        if awareness.ranges == "learn":
            self.input_range = nn.Parameter(scale)
        else:
            self.register_buffer("input_range", scale, persistent=False)
        self.register_buffer(
            "output_range",
            torch.tensor(layer.current_scale, dtype=like.dtype, device=like.device),
            persistent=False,
        )
        self.see(physics)

    def see(self, physics: Physics) -> None:
        """Take over what the hardware is; ranges stay."""
        self.physics, awareness = physics, self.awareness
        self.wiring = Wiring(physics, awareness.wires, self.weight)
        for name, part in (
            ("shift", self._shift(awareness)), ("spread", physics.spread), ("read", physics.read),
        ):  # fmt: skip
            self._part(name, part)
        own = () if physics.own is None else (physics.own,)
        for prefix, patterns in (("own", own), ("patterns", physics.patterns)):
            self._patterns(prefix, patterns)
        # Where nothing is shifted, as without drift or a chip of its own, nothing is added.
        # A population's chips have their converters' errors in their patterns.
        self._errors = (
            awareness.weight_noise == "hardware" and not awareness.chips and bool(physics.errors)
        )
        self._shifted = any(
            float(self.get_buffer(f"shift_{kind}").abs().max()) > _NOTHING
            for kind in ("weight", "bias")
        )

    def _shift(self, awareness: Awareness) -> Part:
        """What the hardware adds to the design's weights beyond what ``wiring`` makes of them.

        Without wires it is what it would be with the attenuations of the design.
        """
        physics = self.physics
        kind = "frozen" if awareness.wires == "none" else awareness.wires
        one = torch.ones((), dtype=self.weight.dtype)
        weight, bias = Wiring(physics, kind, self.weight)(
            physics.target.weight.to(self.weight), physics.target.bias.to(self.weight), one, one
        )
        assert bias is not None or not physics.bias_rows
        return Part(
            physics.mean.weight.to(self.weight) - weight.detach(),
            physics.mean.bias.to(self.weight) - (0.0 if bias is None else bias.detach()),
        )

    def _part(self, name: str, part: Part) -> None:
        for kind in ("weight", "bias"):
            value = getattr(part, kind).to(self.weight)
            self.register_buffer(f"{name}_{kind}", value, persistent=False)

    def _patterns(self, prefix: str, patterns: Sequence[Pattern]) -> None:
        """Keep chips' parts one above the other; None where there are none."""

        def keep(name: str, values: list[torch.Tensor | None]) -> None:
            some = [value for value in values if value is not None]
            stacked = torch.stack(some).to(self.weight) if some else None
            self.register_buffer(f"{prefix}_{name}", stacked, persistent=False)

        keep("weight", [pattern.added.weight for pattern in patterns])
        keep("bias", [pattern.added.bias for pattern in patterns])
        factors = [pattern.factor for pattern in patterns]
        keep("factor_weight", [None if f is None else f.weight for f in factors])
        keep("factor_bias", [None if f is None else f.bias for f in factors])
        keep("offset", [pattern.offset for pattern in patterns])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute as the tiles do: with noise in ``train()``, without in ``eval()``.

        Raises InputError for an input that does not fit the layer.
        """
        settings, layer = self.settings, self.physics.layer
        noisy = self.training and self.runner is None
        if self.training:
            if settings.clip is not None:
                self._clip(settings.clip)
            if settings.ranges == "track":
                _track(self.input_range, x)
        driven = quantised(x, self.input_range, layer.signed, settings.input_levels)
        scale = self.scale()
        weight, bias = self._effective(noisy, scale)
        if settings.output_levels is None or len(self.physics.row_cuts) == 1:
            z = multiply(driven, layer, weight, bias)
            if noisy:
                z = self._read(z, driven, scale)
            z = self._converted(z, scale)
        else:
            z = self._by_tiles(driven, weight, bias, noisy, scale)
        if self.bias is not None and not self.physics.bias_rows:
            z = z + (self.bias if layer.convolution is None else _channels(self.bias, layer))
        if self.runner is None:
            return z
        # Values are the chip's, derivatives of this layer where the chip's own values are.
        return z + (self.runner(x) - z).detach()

    def digital(self) -> nn.Module:
        """Return torch's own layer with these weights."""
        raise NotImplementedError

    def scale(self) -> torch.Tensor:
        """The largest weight, which takes the whole conductance range."""
        return self.weight.detach().abs().amax().clamp_min(1e-12)

    def _clip(self, clip: float) -> None:
        with torch.no_grad():
            bound = clip * float(self.weight.std())
            self.weight.clamp_(-bound, bound)

    def _effective(
        self, noisy: bool, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weights, and what bias rows come to, as the currents see them."""
        settings = self.settings
        full = scale * self.input_range.detach()
        weight = self.weight
        bias = self.bias if self.physics.bias_rows else None
        if settings.weight_levels is not None:
            weight = rounded(weight, scale / settings.weight_levels)
        weight, bias = self.wiring(weight, bias, scale, full)
        if self.distortion is not None:
            weight = weight * self.distortion
        for deviation_w, deviation_b in self._deviations(noisy, weight):
            weight = torch.addcmul(weight, deviation_w, scale)
            if bias is not None and deviation_b is not None:
                bias = torch.addcmul(bias, deviation_b, full)
        for prefix, chip in (("own", 0), ("patterns", self.draws.chip)):
            if prefix == "own" or noisy:
                weight, bias = self._of_chip(prefix, chip, weight, bias, full)
        if noisy and self._errors:
            errors = self.physics.errors
            return with_errors(
                self.physics, errors, self.draws, weight, bias, scale, full, self.output_range
            )
        return weight, bias

    def _of_chip(
        self,
        prefix: str,
        chip: int,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        full: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Gains and offsets of one chip's converters."""
        if (factor := self._buffers[f"{prefix}_factor_weight"]) is not None:
            weight = weight * factor[chip]
            if bias is not None:
                bias = bias * self.get_buffer(f"{prefix}_factor_bias")[chip]
        if (offset := self._buffers[f"{prefix}_offset"]) is not None:
            added = offset[chip] * full
            bias = added if bias is None else bias + added
        return weight, bias

    def _deviations(
        self, noisy: bool, like: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """What is added to the weights, over their largest."""
        result: list[tuple[torch.Tensor, torch.Tensor | None]] = []
        if self._shifted:
            result.append((self.get_buffer("shift_weight"), self.get_buffer("shift_bias")))
        if not noisy:
            return result
        if self.physics.patterns:
            chip = self.draws.chip
            pattern_w = self.get_buffer("patterns_weight")[chip]
            result.append((pattern_w, self.get_buffer("patterns_bias")[chip]))
        sigma = self.settings.weight_noise
        if sigma is None or sigma > 0:
            drawn = self.draws.normal(like.shape, like)
            outputs = self.get_buffer("spread_bias")
            noise_b = self.draws.normal(outputs.shape, like)
            if sigma is None:
                result.append((drawn.mul_(self.get_buffer("spread_weight")), noise_b * outputs))
            else:
                rows = self.physics.bias_rows
                result.append((drawn.mul_(sigma), noise_b.mul_(sigma * rows**0.5)))
        return result

    def _read(self, z: torch.Tensor, driven: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Add the noise of one read of every weight, as noise of the outputs."""
        sigma, layer = self.settings.read_noise, self.physics.layer
        if sigma == 0.0:
            return z
        with torch.no_grad():
            noise = self.draws.normal(z.shape, z)
            if sigma is None:
                constant = self.get_buffer("read_bias") * (scale * self.input_range).square()
                variance = multiply(
                    driven.square(),
                    layer,
                    self.get_buffer("read_weight") * scale.square(),
                    constant,
                )
                noise = noise.mul_(variance.sqrt_())
            else:
                power = _power(driven, layer)
                if rows := self.physics.bias_rows:
                    power = power + rows * self.input_range.square()
                noise = noise.mul_(power.sqrt_().mul_(sigma * float(scale)))
        return z + noise

    def _converted(self, z: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        levels = self.settings.output_levels
        if levels is None:
            return z
        full = float(scale) * float(self.input_range.detach())
        if self.training and self.settings.ranges == "track":
            _track(self.output_range, z / full)
        return converted(z, float(self.output_range) * full, levels)

    def _by_tiles(
        self,
        driven: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        noisy: bool,
        scale: torch.Tensor,
    ) -> torch.Tensor:
        """Convert every row of tiles by itself, then add; biases are in the last ones."""
        layer = self.physics.layer
        rows = unfold(driven, layer)  # (..., group, input)
        matrix = weight.reshape(layer.groups, layer.outputs, layer.inputs)
        cuts = [
            slice(cut.start, min(cut.stop, layer.inputs))
            for cut in self.physics.row_cuts
            if cut.start < layer.inputs
        ]
        parts = partial_sums(rows, matrix, cuts)  # (tile, ..., group, output)
        if bias is not None:
            last = torch.zeros(len(cuts), *[1] * (parts.ndim - 1)).to(parts)
            last[-1] = 1.0
            parts = parts + last * bias.reshape(layer.groups, layer.outputs)
        if noisy and self.settings.read_noise != 0.0:
            parts = parts + self._read_of(rows, cuts, parts, scale)
        return fold(self._converted(parts, scale).sum(0).flatten(-2), layer)

    def _read_of(
        self,
        rows: torch.Tensor,
        cuts: Sequence[slice],
        parts: torch.Tensor,
        scale: torch.Tensor,
    ) -> torch.Tensor:
        """Noise of one read of every weight in each tile; what rows without input have is
        in the first."""
        sigma, layer = self.settings.read_noise, self.physics.layer
        with torch.no_grad():
            noise = self.draws.normal(parts.shape, parts)
            if sigma is None:
                read = self.get_buffer("read_weight").reshape(
                    layer.groups, layer.outputs, layer.inputs
                )
                variance = partial_sums(rows.square(), read, cuts)
                constant = self.get_buffer("read_bias").reshape(layer.groups, layer.outputs)
                variance[0] += constant * self.input_range.square()
                return noise.mul_(variance.sqrt_()).mul_(float(scale))
            sizes = [torch.linalg.vector_norm(rows[..., c], dim=-1, keepdim=True) for c in cuts]
            if count := self.physics.bias_rows:
                sizes[-1] = torch.hypot(sizes[-1], count**0.5 * self.input_range)
            return noise.mul_(torch.stack(sizes).mul_(sigma * float(scale)))


class AnalogLinear(Analog, nn.Linear):
    """``nn.Linear`` on tiles."""

    def digital(self) -> nn.Module:
        """Return the plain linear map with these weights."""
        plain = nn.Linear(
            self.in_features, self.out_features, self.bias is not None,
            device=self.weight.device, dtype=self.weight.dtype,
        )  # fmt: skip
        return _with_parameters(plain, self)


class AnalogConv1d(Analog, nn.Conv1d):
    """``nn.Conv1d`` on tiles."""

    def digital(self) -> nn.Module:
        """Return the plain convolution with these weights."""
        return _with_parameters(_plain_convolution(self, nn.Conv1d), self)


class AnalogConv2d(Analog, nn.Conv2d):
    """``nn.Conv2d`` on tiles."""

    def digital(self) -> nn.Module:
        """Return the plain convolution with these weights."""
        return _with_parameters(_plain_convolution(self, nn.Conv2d), self)


_KINDS: tuple[tuple[type[nn.Module], type[Analog]], ...] = (
    (nn.Linear, AnalogLinear),
    (nn.Conv1d, AnalogConv1d),
    (nn.Conv2d, AnalogConv2d),
)


def analog_layer(plain: nn.Module, physics: Physics, awareness: Awareness, draws: Draws) -> Analog:
    """Return a layer's analog twin, which takes over its parameters as they are.

    Raises TrainingError for a module of another class than ``nn.Linear``, ``nn.Conv1d`` and
    ``nn.Conv2d``: a subclass computes what nobody here knows.
    """
    for kind, twin in _KINDS:
        if type(plain) is kind:
            made = twin.__new__(twin)
            nn.Module.__init__(made)
            made.__dict__.update(
                {key: value for key, value in plain.__dict__.items() if key not in made.__dict__}
            )
            made.training = plain.training
            for name, parameter in plain._parameters.items():
                made.register_parameter(name, parameter)
            made.attach(physics, awareness, draws)
            return made
    raise TrainingError(
        f"is a {type(plain).__name__}",
        where=f"layer {physics.layer.name!r}",
        remedy="analog layers stand for nn.Linear, nn.Conv1d and nn.Conv2d",
    )


def _plain_convolution(layer: Any, kind: Any) -> nn.Module:
    made: nn.Module = kind(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
        layer.dilation, layer.groups, layer.bias is not None, layer.padding_mode,
        device=layer.weight.device, dtype=layer.weight.dtype,
    )  # fmt: skip
    return made


def _with_parameters(plain: nn.Module, layer: Any) -> nn.Module:
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(getattr(layer, name))
    plain.train(layer.training)
    return plain


def _channels(bias: torch.Tensor, layer: Layer) -> torch.Tensor:
    """A bias along the channels of a convolution's result."""
    assert layer.convolution is not None
    return bias.reshape(-1, *[1] * len(layer.convolution.kernel))


def _power(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Sum of the squares that meet each output; broadcasts against the result."""
    power = x.square()
    if layer.convolution is None:
        return power.sum(-1, keepdim=True)
    ones = power.new_ones(layer.groups, layer.outputs, layer.inputs)
    return multiply(power, layer, kernel(ones, layer), None)


def _track(full: torch.Tensor, x: torch.Tensor) -> None:
    """Follow the largest magnitude: at once upwards, slowly downwards."""
    with torch.no_grad():
        largest = x.detach().abs().amax()
        full.copy_(torch.maximum(largest, _MEMORY * full + (1 - _MEMORY) * largest))
