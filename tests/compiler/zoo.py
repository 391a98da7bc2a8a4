"""Models that compile: what a user may bring. Each entry is a model and an example."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from spicenn.compiler.design import Design
from spicenn.compiler.mapping import Tile
from spicenn.compiler.pipeline import compile
from spicenn.technology import Technology

Entry = tuple[nn.Module, tuple[Tensor, ...]]


class Lambda(nn.Module):
    """A forward function over named modules."""

    def __init__(self, function: Callable[..., object], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding="same")
        self.bn2 = nn.BatchNorm2d(6)
        self.shortcut = nn.Conv2d(3, 6, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y = self.relu(y + self.shortcut(x))
        y = functional.adaptive_avg_pool2d(y, 1)
        logits: Tensor = self.fc(y.view(y.size(0), -1))
        return logits


class TwoUsers(nn.Module):
    """A convolution whose output feeds a BatchNorm and something else: no folding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.bn(y) + y
        return z


class SharedConv(nn.Module):
    """One convolution, two BatchNorms: folding either would need two sets of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)
        self.bn1 = nn.BatchNorm1d(2)
        self.bn2 = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv(self.bn1(self.conv(x)).relu()))
        return y


class TiedAutoencoder(nn.Module):
    """A weight and its transpose, and an embedding that is the output's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.encode = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.tanh(self.encode(self.embedding(tokens)))
        return (hidden @ self.encode.weight) @ self.embedding.weight.T


class TiedWeights(nn.Module):
    """Two modules, one weight, two biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.b = nn.Linear(5, 5)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x).relu())
        return y


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return y


class CrossAttention(nn.Module):
    """Queries and keys from two inputs of different length."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)

    def forward(self, query: Tensor, memory: Tensor) -> dict[str, Tensor]:
        y, weights = self.attention(query, memory, memory)
        return {"value": y, "weights": weights}


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(2, 3, bias=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.sigmoid(self.left(a) + self.right(b))


class VisionTransformer(nn.Module):
    """Patches, a class token, a position table, an encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.position = nn.Parameter(torch.randn(1, 5, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], dim=1) + self.position
        logits: Tensor = self.head(self.encoder(y)[:, 0])
        return logits


def _settle(model: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics and every norm a scale that are not the defaults."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return model


def _old_weight_norm() -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the very thing that is meant
        return nn.utils.weight_norm(nn.Linear(6, 4))


def _reused() -> nn.Module:
    linear = nn.Linear(6, 6)
    return nn.Sequential(linear, nn.ReLU(), linear, nn.Tanh(), linear)


def _reused_parametrized() -> nn.Module:
    linear = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    return nn.Sequential(linear, nn.ReLU(), linear)


def _models() -> dict[str, Callable[[], Entry]]:
    def x(*shape: int) -> tuple[Tensor]:
        return (torch.randn(2, *shape),)

    def tokens(high: int, *shape: int) -> tuple[Tensor]:
        return (torch.randint(0, high, (2, *shape)),)

    seq = nn.Sequential
    return {
        "mlp": lambda: (seq(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4)), x(6)),
        "mlp-batchnorm": lambda: (
            seq(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4, bias=False)),
            x(6),
        ),
        "linear-3d-batchnorm": lambda: (seq(nn.Linear(6, 4), nn.BatchNorm1d(5)), x(5, 6)),
        "grouped-dilated-cnn": lambda: (
            seq(
                nn.Conv2d(4, 8, 3, groups=2, dilation=2, padding=2, stride=2),
                nn.ReLU(),
                nn.Conv2d(8, 4, (1, 3), padding=(0, 1), dilation=(1, 2)),
                nn.Flatten(),
                nn.Linear(32, 3),
            ),
            x(4, 8, 8),
        ),
        "depthwise": lambda: (
            seq(nn.Conv2d(4, 8, 3, groups=4, padding="same"), nn.SiLU(), nn.Conv2d(8, 3, 1)),
            x(4, 6, 6),
        ),
        "same-even-kernel": lambda: (nn.Conv2d(2, 3, (2, 4), padding="same"), x(2, 5, 6)),
        "padding-modes": lambda: (
            seq(
                nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"),
                nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
                nn.Conv2d(2, 2, 3, padding=1, padding_mode="replicate"),
            ),
            x(2, 5, 5),
        ),
        "conv1d": lambda: (
            seq(
                nn.Conv1d(3, 6, 5, stride=2, padding=1, bias=False),
                nn.BatchNorm1d(6),
                nn.LeakyReLU(),
                nn.MaxPool1d(2),
                nn.Conv1d(6, 4, 2, groups=2),
                nn.AdaptiveAvgPool1d(1),
                nn.Flatten(),
            ),
            x(3, 20),
        ),
        "resnet-block": lambda: (ResidualBlock(), x(3, 6, 6)),
        "pooling": lambda: (
            seq(
                nn.Conv2d(2, 4, 3),
                nn.MaxPool2d(2),
                nn.AvgPool2d(2),
                nn.AdaptiveMaxPool2d(2),
                nn.ZeroPad2d(1),
                nn.Upsample(scale_factor=2),
            ),
            x(2, 14, 14),
        ),
        "activations": lambda: (
            seq(
                nn.Linear(6, 6),
                nn.GELU(),
                nn.GELU("tanh"),
                nn.SiLU(),
                nn.Hardswish(),
                nn.ELU(),
                nn.PReLU(),
                nn.Softplus(),
                nn.Mish(),
                nn.Sigmoid(),
                nn.Hardtanh(),
                nn.ReLU6(),
                nn.SELU(),
                nn.CELU(),
                nn.Softsign(),
                nn.Hardsigmoid(),
                nn.LogSigmoid(),
                nn.Linear(6, 6),
                nn.GLU(-1),
                nn.Dropout(0.5),
                nn.Softmax(-1),
            ),
            x(6),
        ),
        "layernorm": lambda: (
            seq(
                nn.Linear(6, 8),
                nn.LayerNorm(8),
                nn.GELU(),
                nn.RMSNorm(8),
                nn.GroupNorm(2, 8),
                nn.Linear(8, 3),
                nn.LogSoftmax(-1),
            ),
            x(6),
        ),
        "dropout": lambda: (
            seq(nn.Conv2d(2, 3, 2), nn.Dropout2d(), nn.Flatten(), nn.Dropout(), nn.Linear(27, 2)),
            x(2, 4, 4),
        ),
        "two-users": lambda: (TwoUsers(), x(2, 6, 6)),
        "shared-convolution": lambda: (SharedConv(), x(2, 7)),
        "weight-norm": lambda: (
            seq(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Tanh()),
            x(6),
        ),
        "weight-norm-old": lambda: (_old_weight_norm(), x(6)),
        "spectral-norm": lambda: (
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)),
            x(2, 5, 5),
        ),
        "tied-weights": lambda: (TiedWeights(), x(5)),
        "tied-embedding": lambda: (TiedAutoencoder(), tokens(7, 4)),
        "reused-module": lambda: (_reused(), x(6)),
        "reused-parametrized": lambda: (_reused_parametrized(), x(6)),
        "attention": lambda: (Attention(), x(5, 8)),
        "cross-attention": lambda: (
            CrossAttention(),
            (torch.randn(2, 3, 8), torch.randn(2, 5, 6)),
        ),
        "transformer-encoder": lambda: (
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True),
            x(5, 8),
        ),
        "transformer-encoder-norm-first": lambda: (
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True),
                2,
                enable_nested_tensor=False,
            ),
            x(4, 8),
        ),
        "vision-transformer": lambda: (VisionTransformer(), x(1, 8, 8)),
        "embedding": lambda: (
            seq(nn.Embedding(11, 6), nn.Flatten(), nn.Linear(24, 3)),
            tokens(11, 4),
        ),
        "two-inputs": lambda: (TwoInputs(), (torch.randn(2, 4), torch.randn(2, 2))),
        "two-outputs": lambda: (
            Lambda(lambda s, v: (s.a(v), s.b(v).relu()), a=nn.Linear(4, 2), b=nn.Linear(4, 3)),
            x(4),
        ),
        "einsum": lambda: (
            Lambda(lambda s, v: torch.einsum("oi,nti->not", s.a.weight, v), a=nn.Linear(4, 3)),
            x(5, 4),
        ),
        "matmul": lambda: (
            Lambda(lambda s, v: s.a.weight @ v + s.a.bias[:, None], a=nn.Linear(4, 3)),
            x(4, 5),
        ),
        "bmm": lambda: (
            Lambda(
                lambda s, v: torch.bmm(v, s.a.weight.T[None].expand(v.shape[0], 4, 3)),
                a=nn.Linear(4, 3),
            ),
            x(5, 4),
        ),
        "addmm": lambda: (
            Lambda(lambda s, v: torch.addmm(s.a.bias, v, s.a.weight.T), a=nn.Linear(4, 3)),
            x(4),
        ),
        "positions-first": lambda: (
            Lambda(lambda s, v: s.a(v.transpose(0, 1)).mean(0), a=nn.Linear(4, 3)),
            x(5, 4),
        ),
        "folded-frames": lambda: (
            Lambda(
                lambda s, v: s.a(v.transpose(0, 1).flatten(0, 1)).unflatten(0, (3, -1)).sum(0),
                a=nn.Conv1d(2, 3, 3),
            ),
            x(3, 2, 6),
        ),
        "named-strangely": lambda: (
            seq(
                OrderedDict(
                    [
                        ("a b\nc", nn.Linear(4, 3)),
                        ("größe;", nn.Linear(3, 3)),
                        ('"); raise SystemExit #', nn.Linear(3, 2)),
                    ]
                )
            ),
            x(4),
        ),
    }


ZOO = _models()


def build(name: str, dtype: torch.dtype = torch.float32) -> Entry:
    """Return one model in eval mode and its example, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, example = ZOO[name]()
        model = _settle(model).to(dtype).eval()
        return model, tuple(e.to(dtype) if e.is_floating_point() else e for e in example)


@cache
def compiled(name: str) -> Design:
    """Return one model compiled to ideal tiles so small that most layers need several."""
    model, example = build(name)
    return compile(model, example, technology=Technology.preset("ideal"), tile=Tile(5, 6))


def inputs_like(example: tuple[Tensor, ...], samples: int) -> tuple[Tensor, ...]:
    """Return other inputs of the same kind."""
    with torch.random.fork_rng():
        torch.manual_seed(samples)
        return tuple(
            torch.randn(samples, *e.shape[1:], dtype=e.dtype)
            if e.is_floating_point()
            else torch.randint(0, 7, (samples, *e.shape[1:]), dtype=e.dtype)
            for e in example
        )
