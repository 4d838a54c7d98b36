"""Kinds of networks whose layers people write themselves, and those of frameworks that they mix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from network_kinds import Kind, OverTime
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize


def _spikes(*shape: int) -> Tensor:
    return (torch.rand(5, 2, *shape) < 0.6).float()


def _net(make: Callable[[], nn.Module], *shape: int) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make(), torch.rand(3, *shape))


class _Cell(nn.Module):
    """Recurrent spiking neurons with matrices of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(8, 6) / 2)
        self.w_rec = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        v = z = torch.zeros(x.shape[1], 8)
        outputs = []
        for step in x:
            v = 0.9 * v * (1 - z) + step @ self.w_in.T + z @ self.w_rec.T
            z = (v > 0.5).float() + v.sigmoid() - v.sigmoid().detach()
            outputs.append(z)
        return torch.stack(outputs)


class _Gates(nn.Module):
    """All gates in one parameter of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        gate, new = torch.einsum("ghi,tbi->gtbh", self.weight, x)
        return gate.sigmoid() * new.tanh()


class _Delays(nn.Module):
    """A kernel over time for every synapse."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 6, 3))

    def forward(self, x: Tensor) -> Tensor:
        past = functional.pad(x.permute(1, 2, 0), (2, 0))
        return functional.conv1d(past, self.kernel).permute(2, 0, 1)


class _Columns(nn.Module):
    """A matrix that is multiplied column by column."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, i, None] * self.weight[:, i] for i in range(6)]).sum(0)


class _Reservoir(nn.Module):
    """Fixed random weights in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fixed", torch.randn(6, 8))
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out((x @ self.fixed).tanh())
        return out


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.attention(x, x, x)[0])
        return out


class _TiedTable(nn.Module):
    """A table whose transpose gives the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.table(x).mean(1))
        return out


class _LowRank(nn.Module):
    """A low-rank change beside a frozen layer, or merged into its weight."""

    def __init__(self, *, merged: bool) -> None:
        super().__init__()
        self.base = nn.Linear(6, 4).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 6))
        self.up = nn.Parameter(torch.randn(4, 2))
        self.merged = merged

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:
            return functional.linear(x, self.base.weight + self.up @ self.down, self.base.bias)
        out: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return out


class _Transposed(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layers = [layer]

    def forward(self, weight: Tensor) -> Tensor:
        transposed: Tensor = self.layers[0].weight.T
        return transposed


def _autoencoder() -> nn.Module:
    first, last = nn.Linear(6, 4), nn.Linear(4, 6, bias=False)
    parametrize.register_parametrization(last, "weight", _Transposed(first))
    return nn.Sequential(first, nn.Tanh(), last)


class _Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


def _stacked() -> nn.Module:
    layer = nn.Linear(6, 6)
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    return nn.Sequential(parametrizations.spectral_norm(layer), nn.Tanh(), nn.Linear(6, 4))


def _subclass() -> tuple[nn.Module, Any]:
    import snntorch as snn

    class Louder(snn.Leaky):
        def forward(self, x: Tensor, *state: Tensor) -> Any:
            return super().forward(1.5 * x, *state)

    neurons = Louder(beta=0.9, threshold=0.3, init_hidden=True)
    return OverTime(nn.Linear(6, 8), neurons, nn.Linear(8, 4)), _spikes(6)


class _First(nn.Sequential):
    """Take the first of several outputs of each layer."""

    def forward(self, x: Any) -> Any:
        for layer in self:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


def _spiking_rnn(name: str) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        from spikingjelly.activation_based import rnn

        return _First(getattr(rnn, name)(6, 8, 1), nn.Linear(8, 4)), 3 * _spikes(6)

    return build


def _brevitas_shared() -> tuple[nn.Module, Any]:
    import brevitas.nn as qnn

    first = qnn.QuantLinear(6, 6, bias=False, weight_bit_width=4)
    second = qnn.QuantLinear(6, 6, bias=False, weight_quant=first.weight_quant)
    return nn.Sequential(first, nn.ReLU(), second), torch.rand(3, 6)


def _peft() -> tuple[nn.Module, Any]:
    from peft import LoraConfig, get_peft_model

    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    adapted = get_peft_model(net, LoraConfig(r=2, target_modules=["0"], init_lora_weights=False))
    return adapted, torch.rand(3, 6)


OWN: list[Kind] = [
    Kind("own layers", "recurrent spiking cell", lambda: (_Cell(), _spikes(6))),
    Kind("own layers", "all gates in one parameter", lambda: (_Gates(), _spikes(6))),
    Kind("own layers", "kernels over time", lambda: (_Delays(), _spikes(6))),
    Kind("own layers", "column by column", _net(_Columns, 6)),
    Kind("own layers", "fixed weights in a buffer", _net(_Reservoir, 6)),
    Kind("own layers", "low-rank change, beside", _net(lambda: _LowRank(merged=False), 6)),
    Kind("own layers", "low-rank change, merged", _net(lambda: _LowRank(merged=True), 6)),
    Kind("own layers", "tied table", lambda: (_TiedTable(), torch.randint(0, 7, (3, 4)))),
    Kind("own layers", "transpose by parametrization", _net(_autoencoder, 6)),
    Kind("own layers", "two parametrizations", _net(_stacked, 6)),
    Kind("own layers", "subclass of `snn.Leaky`", _subclass),
    Kind("torch", "`MultiheadAttention`", _net(_Attention, 5, 6)),
    Kind("SpikingJelly", "`SpikingLSTM`", _spiking_rnn("SpikingLSTM")),
    Kind("SpikingJelly", "`SpikingGRU`", _spiking_rnn("SpikingGRU")),
    Kind("brevitas", "a quantiser that two layers share", _brevitas_shared, "brevitas.nn"),
    Kind("peft", "LoRA", _peft, "transformers"),
]
