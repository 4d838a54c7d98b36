"""Public kinds of networks, small: what people build with the frameworks of the field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Args:
        group: Framework or library.
        name: What it is.
        build: Makes a small one and an input; a tuple holds several arguments.
        package: What has to be installed.
    """

    group: str
    name: str
    build: Callable[[], tuple[nn.Module, Any]]
    package: str = ""


class OverTime(nn.Module):
    """Run single-step layers over [T, B, ...] and count spikes."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        outputs = []
        for step in x:
            for layer in self.layers:
                step = layer(step)
                step = step[0] if isinstance(step, tuple) else step
            outputs.append(step)
        return torch.stack(outputs)


class WithState(nn.Module):
    """Run layers that take and return their state, as norse's do."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        states: list[Any] = [None] * len(self.layers)
        outputs = []
        for step in x:
            for i, layer in enumerate(self.layers):
                if isinstance(layer, nn.Linear):
                    step = layer(step)
                else:
                    step, states[i] = layer(step, states[i])
            outputs.append(step)
        return torch.stack(outputs)


class Tutorial(nn.Module):
    """snnTorch's tutorial 5: membrane potentials in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch as snn

        self.fc1, self.lif1 = nn.Linear(6, 12), snn.Leaky(beta=0.9, threshold=0.3)
        self.fc2, self.lif2 = nn.Linear(12, 4), snn.Leaky(beta=0.9, threshold=0.3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, potentials = [], []
        for step in x:
            out, mem1 = self.lif1(self.fc1(step), mem1)
            out, mem2 = self.lif2(self.fc2(out), mem2)
            spikes.append(out)
            potentials.append(mem2)
        return torch.stack(potentials), torch.stack(spikes)


def _seq(*shape: int) -> Tensor:
    return (torch.rand(5, 2, *shape) < 0.6).float()


def _snn(name: str, *shape: int, **kw: Any) -> Callable[[], tuple[nn.Module, Any]]:
    """A linear layer and an snnTorch neuron with a hidden state."""

    def build() -> tuple[nn.Module, Any]:
        import snntorch as snn

        made = getattr(snn, name)(init_hidden=True, threshold=0.3, **kw)
        return OverTime(nn.Linear(6, 8), made, nn.Linear(8, 4)), _seq(6)

    return build


def _snn_parallel(name: str) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        import snntorch as snn

        made = getattr(snn, name)(input_size=6, hidden_size=8, threshold=0.3)
        return nn.Sequential(made, nn.Linear(8, 4)), _seq(6)

    return build


def _snn_lstm() -> tuple[nn.Module, Any]:
    import snntorch as snn

    lstm = snn.SLSTM(6, 8, threshold=0.1, init_hidden=True)
    return OverTime(lstm, nn.Linear(8, 4)), _seq(6)


def _snn_conv_lstm() -> tuple[nn.Module, Any]:
    import snntorch as snn

    lstm = snn.SConv2dLSTM(2, 3, kernel_size=3, threshold=0.1, init_hidden=True)
    return OverTime(lstm, nn.Flatten(), nn.Linear(48, 4)), _seq(2, 4, 4)


def _snn_cnn() -> tuple[nn.Module, Any]:
    import snntorch as snn

    def lif(**kw: Any) -> nn.Module:
        return snn.Leaky(beta=0.9, threshold=0.2, init_hidden=True, **kw)

    net = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.MaxPool2d(2),
        lif(),
        nn.Flatten(),
        nn.Linear(36, 4),
        lif(output=True),
    )
    return OverTime(net), _seq(2, 8, 8)


def _jelly(name: str, step_mode: str = "m", **kw: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        from spikingjelly.activation_based import layer, neuron

        made = getattr(neuron, name)(**kw)
        made.step_mode = step_mode
        first = layer.Linear(6, 8, step_mode=step_mode)
        last = layer.Linear(8, 4, step_mode=step_mode)
        net = (first, made, last)
        return (OverTime(*net) if step_mode == "s" else nn.Sequential(*net)), 3 * _seq(6)

    return build


def _jelly_layer(
    make: Callable[[Any, Any], nn.Module], *shape: int, step_mode: str = "m"
) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        from spikingjelly.activation_based import layer, neuron

        net = make(layer, lambda: neuron.LIFNode(v_threshold=0.2, step_mode=step_mode))
        return (OverTime(net) if step_mode == "s" else net), _seq(*shape)

    return build


def _torch(make: Callable[[], nn.Module], *shape: int) -> Callable[[], tuple[nn.Module, Any]]:
    return lambda: (make(), torch.rand(3, *shape))


def _pruned(layer: nn.Module, name: str = "weight", **kw: Any) -> nn.Module:
    made: nn.Module = prune.l1_unstructured(layer, name, amount=0.4, **kw)
    return made


def _structured() -> nn.Module:
    layer = prune.ln_structured(nn.Conv2d(2, 6, 3), "weight", amount=0.5, n=2, dim=0)
    return nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))


class _Binary(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.sign() * self.weight.abs().mean()
        return functional.linear(x, weight + self.weight - self.weight.detach(), self.bias)


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def _qat(learning: bool = False) -> nn.Module:
    from torch.ao import quantization as ao

    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    net.qconfig = ao.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
    net = ao.prepare_qat(net.train())
    net(torch.rand(8, 6))
    return net if learning else net.apply(ao.disable_observer)


def _qat_fused() -> nn.Module:
    from torch.ao import quantization as ao

    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    net.qconfig = ao.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
    net = ao.prepare_qat(ao.fuse_modules_qat(net.train(), [["0", "1", "2"]]))
    net(torch.rand(8, 2, 6, 6))
    return net.apply(ao.disable_observer)


def _norse(make: Callable[[Any], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        import norse.torch as norse

        return make(norse), 5 * _seq(6)

    return build


class _First(nn.Module):
    """The output alone of a network that returns its state too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        output = self.inner(x)
        return output[0] if isinstance(output, tuple) else output


def _sinabs(make: Callable[[Any], nn.Module]) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        import sinabs.layers as sl

        return make(sl), 4 * _seq(6).transpose(0, 1)  # batch first

    return build


def _rockpool(has_rec: bool) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        from rockpool.nn.combinators import Sequential
        from rockpool.nn.modules import LIFTorch, LinearTorch

        net = Sequential(
            LinearTorch((6, 8)),
            LIFTorch((8, 8) if has_rec else 8, has_rec=has_rec, dt=1e-2),
            LinearTorch((8, 4)),
        )
        return _First(net), 5 * _seq(6).transpose(0, 1)

    return build


def _brevitas(conv: bool) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        import brevitas.nn as qnn

        if conv:
            net = nn.Sequential(
                qnn.QuantConv2d(2, 4, 3, weight_bit_width=4),
                qnn.QuantReLU(bit_width=4),
                nn.Flatten(),
                qnn.QuantLinear(64, 4, bias=True, weight_bit_width=3),
            )
            return net, torch.rand(3, 2, 6, 6)
        import snntorch as snn

        return OverTime(
            qnn.QuantLinear(6, 8, bias=False, weight_bit_width=4),
            snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True),
            qnn.QuantLinear(8, 4, bias=True, weight_bit_width=4),
        ), _seq(6)

    return build


def _lightning() -> tuple[nn.Module, Any]:
    import lightning

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

    return Net(), torch.rand(3, 6)


def _accelerate() -> tuple[nn.Module, Any]:
    from accelerate import Accelerator

    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    return Accelerator(cpu=True).prepare(net), torch.rand(3, 6)


def _accelerate_hooks() -> tuple[nn.Module, Any]:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    add_hook_to_module(net[0], AlignDevicesHook())
    return net, torch.rand(3, 6)


def _transformers(name: str) -> Callable[[], tuple[nn.Module, Any]]:
    def build() -> tuple[nn.Module, Any]:
        import transformers

        if name == "GPT2":
            config = transformers.GPT2Config(
                n_layer=1, n_embd=16, n_head=2, vocab_size=20, n_positions=8
            )
            return _Hidden(transformers.GPT2Model(config)), torch.arange(6).reshape(1, 6)
        sizes = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        }
        if name == "Bert":
            model = transformers.BertModel(transformers.BertConfig(vocab_size=20, **sizes))
            return _Hidden(model), torch.arange(6).reshape(1, 6)
        config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **sizes)
        return _Hidden(transformers.ViTModel(config)), torch.rand(2, 1, 8, 8)

    return build


class _Hidden(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        return self.inner(x).last_hidden_state


KINDS: list[Kind] = [
    Kind("snnTorch", "tutorial 5 (`Leaky`, explicit potentials)", lambda: (Tutorial(), _seq(6))),
    Kind("snnTorch", "tutorial 6 (CNN, `init_hidden`)", _snn_cnn),
    Kind(
        "snnTorch",
        "`Leaky`, learned beta and threshold",
        _snn("Leaky", beta=0.9, learn_beta=True, learn_threshold=True),
    ),
    Kind("snnTorch", "`Lapicque`", _snn("Lapicque", R=10.0, C=1.0, time_step=0.5)),
    Kind("snnTorch", "`Synaptic`", _snn("Synaptic", alpha=0.8, beta=0.9)),
    Kind("snnTorch", "`Alpha`", _snn("Alpha", alpha=0.8, beta=0.7)),
    Kind("snnTorch", "`RLeaky`, all to all", _snn("RLeaky", beta=0.9, linear_features=8)),
    Kind("snnTorch", "`RLeaky`, one to one", _snn("RLeaky", beta=0.9, V=0.5, all_to_all=False)),
    Kind("snnTorch", "`RSynaptic`", _snn("RSynaptic", alpha=0.8, beta=0.9, linear_features=8)),
    Kind("snnTorch", "`SLSTM`", _snn_lstm),
    Kind("snnTorch", "`SConv2dLSTM`", _snn_conv_lstm),
    Kind("snnTorch", "`LeakyParallel`", _snn_parallel("LeakyParallel")),
    *(
        Kind("SpikingJelly", f"`{name}`", _jelly(name, **kw))
        for name, kw in {
            "IFNode": {},
            "LIFNode": {},
            "ParametricLIFNode": {},
            "QIFNode": {},
            "EIFNode": {},
            "KLIFNode": {},
            "LIAFNode": {"act": torch.relu, "threshold_related": False},
            "GatedLIFNode": {"T": 5},
            "PSN": {"T": 5},
            "MaskedPSN": {"T": 5, "k": 2},
            "SlidingPSN": {"k": 2},
            "CUBALIFNode": {},
            "DSRIFNode": {"T": 5},
            "IzhikevichNode": {},
        }.items()
    ),
    Kind("SpikingJelly", "`LIFNode`, single-step", _jelly("LIFNode", "s")),
    Kind(
        "SpikingJelly",
        "`Conv2d`, `BatchNorm2d`, multi-step",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(
                layer.Conv2d(2, 4, 3, step_mode="m"),
                layer.BatchNorm2d(4, step_mode="m"),
                lif(),
                layer.Flatten(step_mode="m"),
                layer.Linear(64, 4, step_mode="m"),
            ),
            2,
            6,
            6,
        ),
    ),
    Kind(
        "SpikingJelly",
        "`WSConv2d`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(layer.WSConv2d(2, 4, 3, step_mode="m"), lif()), 2, 6, 6
        ),
    ),
    Kind(
        "SpikingJelly",
        "`WSLinear`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(layer.WSLinear(6, 8), lif(), layer.Linear(8, 4)), 6
        ),
    ),
    Kind(
        "SpikingJelly",
        "`ConvTranspose2d`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(layer.ConvTranspose2d(2, 3, 3, step_mode="m"), lif()),
            2,
            4,
            4,
        ),
    ),
    Kind(
        "SpikingJelly",
        "`DropConnectLinear`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(layer.DropConnectLinear(6, 8, step_mode="s"), lif()),
            6,
            step_mode="s",
        ),
    ),
    Kind(
        "SpikingJelly",
        "`LinearRecurrentContainer`",
        _jelly_layer(
            lambda layer, lif: layer.LinearRecurrentContainer(lif(), 6, 6), 6, step_mode="s"
        ),
    ),
    Kind(
        "SpikingJelly",
        "`ElementWiseRecurrentContainer`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(
                layer.Linear(6, 6),
                layer.ElementWiseRecurrentContainer(lif(), element_wise_function=torch.add),
            ),
            6,
            step_mode="s",
        ),
    ),
    Kind(
        "SpikingJelly",
        "`SynapseFilter`, learned",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(
                layer.Linear(6, 8), lif(), layer.SynapseFilter(tau=10.0, learnable=True)
            ),
            6,
            step_mode="s",
        ),
    ),
    Kind(
        "SpikingJelly",
        "`TemporalEffectiveBatchNorm2d`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(
                layer.Conv2d(2, 4, 3, step_mode="m"),
                layer.TemporalEffectiveBatchNorm2d(5, 4),
                lif(),
            ),
            2,
            6,
            6,
        ),
    ),
    Kind(
        "SpikingJelly",
        "`TemporalWiseAttention`",
        _jelly_layer(
            lambda layer, lif: nn.Sequential(
                layer.TemporalWiseAttention(T=5, reduction=2),
                layer.Conv2d(2, 4, 3, step_mode="m"),
                lif(),
            ),
            2,
            6,
            6,
        ),
    ),
    Kind(
        "torch",
        "`Linear`, `LayerNorm`",
        _torch(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)), 6),
    ),
    Kind("torch", "`LSTM`", lambda: (_First(nn.LSTM(6, 8)), _seq(6))),
    Kind(
        "torch",
        "`TransformerEncoderLayer`",
        _torch(lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), 5, 8),
    ),
    Kind(
        "torch",
        "a custom matrix",
        _torch(lambda: nn.Sequential(_Own(), nn.ReLU(), nn.Linear(4, 3)), 6),
    ),
    Kind(
        "torch",
        "binary weights in forward",
        _torch(lambda: nn.Sequential(_Binary(6, 8), nn.ReLU(), nn.Linear(8, 4)), 6),
    ),
    Kind(
        "torch prune",
        "`l1_unstructured`",
        _torch(lambda: nn.Sequential(_pruned(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)), 6),
    ),
    Kind("torch prune", "`ln_structured`", _torch(_structured, 2, 6, 6)),
    Kind(
        "torch prune",
        "recurrent matrix of an `RNN`",
        lambda: (_First(_pruned(nn.RNN(6, 8), "weight_hh_l0")), _seq(6)),
    ),
    Kind(
        "torch hooks",
        "`weight_norm`",
        _torch(lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 8)), nn.ReLU()), 6),
    ),
    Kind(
        "torch hooks",
        "`spectral_norm`",
        _torch(lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(2, 4, 3))), 2, 6, 6),
    ),
    Kind(
        "torch parametrizations",
        "`weight_norm`",
        _torch(lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 8))), 6),
    ),
    Kind(
        "torch parametrizations",
        "`spectral_norm`",
        _torch(lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 8))), 6),
    ),
    Kind(
        "torch parametrizations",
        "`orthogonal`",
        _torch(lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(6, 8))), 6),
    ),
    Kind("torch quantisation", "`prepare_qat`", _torch(_qat, 6)),
    Kind("torch quantisation", "`prepare_qat`, observers on", _torch(lambda: _qat(True), 6)),
    Kind("torch quantisation", "`prepare_qat`, fused with batch norm", _torch(_qat_fused, 2, 6, 6)),
    Kind(
        "torch",
        "`torch.compile`",
        _torch(
            lambda: torch.compile(
                nn.Sequential(  # type: ignore[arg-type,return-value]
                    nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)
                ),
                backend="eager",
            ),
            6,
        ),
    ),
    Kind(
        "norse",
        "`LIFCell`",
        _norse(lambda n: WithState(nn.Linear(6, 8), n.LIFCell(), nn.Linear(8, 4))),
        "norse.torch",
    ),
    Kind(
        "norse",
        "`LIFRecurrentCell`",
        _norse(lambda n: WithState(n.LIFRecurrentCell(6, 8), nn.Linear(8, 4))),
        "norse.torch",
    ),
    Kind(
        "norse",
        "`LSNNRecurrentCell`",
        _norse(lambda n: WithState(n.LSNNRecurrentCell(6, 8), nn.Linear(8, 4))),
        "norse.torch",
    ),
    Kind(
        "norse",
        "`SequentialState` over time",
        _norse(lambda n: _First(n.SequentialState(n.LIFRecurrent(6, 8), nn.Linear(8, 4)))),
        "norse.torch",
    ),
    Kind(
        "sinabs",
        "`LIF`",
        _sinabs(
            lambda sl: nn.Sequential(
                nn.Linear(6, 8), sl.LIF(tau_mem=10.0, spike_threshold=0.2), nn.Linear(8, 4)
            )
        ),
        "sinabs.layers",
    ),
    Kind(
        "sinabs",
        "`IAF`, `ExpLeak`",
        _sinabs(
            lambda sl: nn.Sequential(nn.Linear(6, 8), sl.IAF(), nn.Linear(8, 4), sl.ExpLeak(10.0))
        ),
        "sinabs.layers",
    ),
    Kind(
        "sinabs",
        "`LIFRecurrent`",
        _sinabs(
            lambda sl: nn.Sequential(
                nn.Linear(6, 8),
                sl.LIFRecurrent(
                    tau_mem=10.0, spike_threshold=0.2, rec_connect=nn.Linear(8, 8, bias=False)
                ),
                nn.Linear(8, 4),
            )
        ),
        "sinabs.layers",
    ),
    Kind("Rockpool", "`LinearTorch`, `LIFTorch`", _rockpool(False), "rockpool.nn.modules.torch"),
    Kind("Rockpool", "`LIFTorch`, recurrent", _rockpool(True), "rockpool.nn.modules.torch"),
    Kind("brevitas", "`QuantLinear` and `snn.Leaky`", _brevitas(False), "brevitas.nn"),
    Kind("brevitas", "`QuantConv2d`, `QuantReLU`", _brevitas(True), "brevitas.nn"),
    Kind("Lightning", "`LightningModule`", _lightning, "lightning"),
    Kind("accelerate", "`prepare`", _accelerate, "accelerate"),
    Kind("accelerate", "`AlignDevicesHook`", _accelerate_hooks, "accelerate"),
    Kind("transformers", "GPT-2", _transformers("GPT2"), "transformers"),
    Kind("transformers", "BERT", _transformers("Bert"), "transformers"),
    Kind("transformers", "ViT", _transformers("ViT"), "transformers"),
]
