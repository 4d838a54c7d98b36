"""Measures of the whole network: batch-norm statistics, and learning on the chip."""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from spikewvat.adapters.currents import SynapseLayer
from spikewvat.adapters.neurons import Entry, exchanged_entries, overridden
from spikewvat.adapters.torch import batch_norms
from spikewvat.devices.base import check_above_zero
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.calibration.bench import Bench
from spikewvat.robustness.calibration.measure import Correction, NetworkMeasure
from spikewvat.robustness.calibration.trims import check_samples
from spikewvat.robustness.cost import Cost
from spikewvat.training.averaging import refresh_batch_norm
from spikewvat.weights import call_with

_SEED = 0  # of the frozen matrices, which are the same on every chip


@dataclass(frozen=True)
class BatchNorm(NetworkMeasure):
    """Estimate the running statistics of batch norm anew on the chip.

    It corrects what lies in front of a batch norm, not the read-out behind the last one. Does
    nothing to a network without batch norm.

    Args:
        samples: Number of unlabelled calibration samples.

    Raises:
        ValueError: If ``samples`` is below 1.
    """

    samples: int = 256

    def __post_init__(self) -> None:
        check_samples(self.samples)

    def fit(self, bench: Bench) -> Correction:
        """Return the statistics on the present chip (see :meth:`NetworkMeasure.fit`)."""
        norms = {
            name: module
            for name, module in bench.model.named_modules()
            if any(module is norm for norm in batch_norms(bench.model))
        }
        found = [
            (module, key, buffer.clone())
            for module in norms.values()
            for key, buffer in module.named_buffers(recurse=False)
        ]
        with _holding(found):
            inputs = [inputs for inputs, _ in bench.batches(self.samples)]
            if norms:
                refresh_batch_norm(bench.model, inputs, adapter=bench.adapter)
        numbers = {
            f"{name}.{key}": buffer
            for (name, module) in norms.items()
            for owner, key, buffer in found
            if owner is module and key.startswith("running")
        }
        return Correction(numbers, functools.partial(_holding, found))

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        numbers = sum(
            norm.running_mean.numel() + norm.running_var.numel()
            for norm in batch_norms(bench.model)
            if norm.running_mean is not None and norm.running_var is not None
        )
        return Cost(samples=self.samples, passes=1, numbers=numbers)


@contextmanager
def _holding(found: list[tuple[nn.Module, str, Tensor]]) -> Iterator[None]:
    entries: list[Entry] = [(vars(module)["_buffers"], key, value) for module, key, value in found]
    with exchanged_entries(*entries):
        yield


@dataclass(frozen=True)
class Learned(NetworkMeasure):
    r"""Learn offsets of all channels on the chip with Adam: the base of the two measures below.

    With a ``rank``, each layer of synapses also gets a digital side path of low rank,
    :math:`y = \tilde W x + \mathrm{diag}(b) B \, \mathrm{diag}(d) A x`, whose matrices A and B
    are random and the same on every chip, so that only the vectors b and d are stored.

    Args:
        samples: Number of calibration samples.
        steps: Number of steps of Adam, on one batch of the loader each, in turn.
        lr: Learning rate, in standard deviations of a channel's current.
        rank: Rank of the side path, 0 for none.

    Raises:
        ValueError: If a number is out of range.

    References:
        The side path is that of VeRA (Kopiczko et al., 2024), https://arxiv.org/abs/2310.11454
    """

    samples: int = 256
    steps: int = 60
    lr: float = 0.02
    rank: int = 0
    LABELS: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_samples(self.samples)
        for name, least in (("steps", 1), ("rank", 0)):
            number = getattr(self, name)
            if type(number) is not int or number < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {number!r}."
                )
        check_above_zero("lr", self.lr)

    @abstractmethod
    def loss(self, bench: Bench, index: int, output: Any, labels: Tensor) -> Tensor:
        """Return the loss of a batch, a 0-dim tensor."""

    def fit(self, bench: Bench) -> Correction:
        """Return offsets and side paths of the present chip (see :meth:`NetworkMeasure.fit`)."""
        device = next(iter(bench.live.values())).device
        learnt: dict[str, Tensor] = {}
        generator = Generator().manual_seed(_SEED)
        paths: list[_Path] = []
        for layer in bench.layers:
            std = bench.ideal(self.samples, layer).std.float().to(device)
            paths.append(_Path(layer, std, self.rank, generator, learnt))
        for number in learnt.values():
            number.requires_grad_()
        optimizer = torch.optim.Adam(list(learnt.values()), self.lr)
        batches = bench.batches(self.samples)
        order = itertools.islice(itertools.cycle(range(len(batches))), self.steps)
        with torch.enable_grad(), ExitStack() as stack:
            for path in paths:
                stack.enter_context(path.applied())
            stack.enter_context(bench.undrawn())
            for index in order:
                inputs, labels = batches[index]
                loss = self.loss(bench, index, bench.output(inputs, index), labels)
                if not loss.requires_grad:
                    raise UnsupportedModelError(
                        "the output has no gradient with respect to the currents, so that nothing "
                        "can be learnt on the chip. Use neurons with surrogate gradients, or "
                        "trims, which need no gradient."
                    )
                # Of what is learnt alone: the network's parameters keep their gradients.
                found = torch.autograd.grad(loss, list(learnt.values()), allow_unused=True)
                for number, gradient in zip(learnt.values(), found, strict=True):
                    number.grad = gradient
                optimizer.step()
        bench.adapter.reset_state(bench.model)
        for name, number in learnt.items():
            learnt[name] = number.detach()
        numbers = {name: number.clone() for name, number in learnt.items()}
        return Correction(numbers, functools.partial(_all, paths))

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        each = [len(bench.ideal(self.samples, layer).mean) for layer in bench.layers]
        numbers = sum(each) * (2 if self.rank else 1) + self.rank * len(each)
        labels = self.samples if self.LABELS else 0
        batches = len(bench.batches(self.samples))
        passes = -(-self.steps // batches)
        return Cost(samples=self.samples, labels=labels, passes=passes, numbers=numbers)


@dataclass(frozen=True)
class Distillation(Learned):
    r"""Learn on the chip, without labels, what makes its class scores those of the ideal network.

    .. math:: L = \mathrm{mean} \, (s_{chip} - s_{ideal})^2 / \mathrm{var}(s_{ideal})

    Args:
        samples: Number of unlabelled calibration samples.
        steps: Number of steps of Adam, on one batch of the loader each, in turn.
        lr: Learning rate, in standard deviations of a channel's current.
        rank: Rank of the side path, 0 for none (see :class:`Learned`).

    Raises:
        ValueError: If a number is out of range.
    """

    def loss(self, bench: Bench, index: int, output: Any, labels: Tensor) -> Tensor:
        """Return the squared distance of the scores (see :meth:`Learned.loss`)."""
        wanted = bench.ideal_scores(self.samples)[index]
        scale = wanted.var(correction=0).clamp(min=1e-12)
        return functional.mse_loss(bench.scores(output).to(wanted.dtype), wanted) / scale


@dataclass(frozen=True)
class Learning(Learned):
    """Learn on the chip from labelled samples.

    Args:
        samples: Number of labelled calibration samples.
        steps: Number of steps of Adam, on one batch of the loader each, in turn.
        lr: Learning rate, in standard deviations of a channel's current.
        rank: Rank of the side path, 0 for none (see :class:`Learned`).

    Raises:
        ValueError: If a number is out of range.
    """

    LABELS: ClassVar[bool] = True

    def loss(self, bench: Bench, index: int, output: Any, labels: Tensor) -> Tensor:
        """Return the loss of the evaluation, or the cross-entropy of spike counts."""
        return bench.loss(output, labels)


class _Path:
    """The learnt offset and side path of a layer, in units of its channels' currents."""

    def __init__(
        self,
        layer: SynapseLayer,
        std: Tensor,
        rank: int,
        generator: Generator,
        learnt: dict[str, Tensor],
    ) -> None:
        self._layer, self._std, self._learnt = layer, std, learnt
        self._offset = f"{layer.name}.offset"
        learnt[self._offset] = torch.zeros_like(std)
        self._side: tuple[Tensor, Tensor] | None = None
        if rank:
            weight = _matrix(layer)
            inputs = weight[0].numel()
            down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            up = torch.randn(len(weight), rank, generator=generator) / rank**0.5
            self._side = down.to(std.device), up.to(std.device)
            learnt[f"{layer.name}.b"] = torch.zeros_like(std)
            learnt[f"{layer.name}.d"] = torch.full((rank,), 0.1, device=std.device)

    @contextmanager
    def applied(self) -> Iterator[None]:
        layer, name = self._layer, self._layer.name

        def call(inner: Callable[..., Tensor], *args: Any, **kw: Any) -> Tensor:
            if self._side is None:
                y = inner(*args, **kw)
            else:
                (down, up), weight = self._side, _matrix(layer).detach()
                by_channel = self._learnt[f"{name}.b"] * self._std
                change = by_channel[:, None] * (up * self._learnt[f"{name}.d"]) @ down
                read = {"weight": weight + change.view_as(weight).to(weight)}
                y = call_with(layer.module, inner, read, *args, **kw)
            offset = self._learnt[self._offset] * self._std
            return y + layer.shaped(offset).to(y)

        with overridden(layer.module, "forward", call):
            yield


def _matrix(layer: SynapseLayer) -> Tensor:
    """Return the weight of a layer that can have a side path, output channels first."""
    weight = layer.module._parameters.get("weight")
    fits = isinstance(layer.module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    if weight is None or not fits:
        raise UnsupportedModelError(
            f"layer {layer.name!r} ({type(layer.module).__name__}) has no plain weight that a path "
            "of low rank could stand beside. Use rank=0."
        )
    return weight


@contextmanager
def _all(paths: list[_Path]) -> Iterator[None]:
    with ExitStack() as stack:
        for path in paths:
            stack.enter_context(path.applied())
        yield
