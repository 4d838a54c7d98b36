"""Training methods, as the user's own training function calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from spikewvat.adapters import Adapter
from spikewvat.devices import Gaussian
from spikewvat.training import WVAT, Closure, GradientMethod, Plain
from spikewvat.training.averaging import SWA


class Make(Protocol):
    """Makes a gradient method for a network."""

    def __call__(
        self,
        model: nn.Module,
        *,
        adapter: Adapter,
        generator: Generator,
        optimizer: Optimizer | None,
    ) -> GradientMethod:
        """Return it."""


def _plain(model: nn.Module, *, adapter: Adapter, **_: object) -> Plain:
    return Plain(model, adapter=adapter)


def _wvat(model: nn.Module, *, adapter: Adapter, generator: Generator, **_: object) -> WVAT:
    return WVAT(model, Gaussian(sigma=0.10), adapter=adapter, generator=generator)


@dataclass(frozen=True)
class Method:
    """A training method to compare.

    Args:
        make: Makes the gradient method; plain training by default. Called in the first step of
            each training with the network and, as keywords, ``adapter``, ``generator`` (seeded
            with the training's seed) and ``optimizer`` (what the training function has passed to
            :meth:`Steps.backward`, or None).
        averaged: Average the weights of the last quarter of the epochs.
    """

    make: Make = _plain
    averaged: bool = False


METHODS: Mapping[str, Method] = {
    "plain": Method(),
    "SWA": Method(averaged=True),
    "WVAT": Method(_wvat, averaged=True),
}
"""The methods compared by default."""


class Steps:
    """The calls that a training function makes in every step and after every epoch.

    Args:
        method: The method that the steps belong to.
        model: The network that is trained.
        adapter: Finds its synapses and resets its state.
        generator: Source of randomness for the method.
        on_epoch: Called by :meth:`epoch_ended`, with its arguments.
    """

    def __init__(
        self,
        method: Method,
        model: nn.Module,
        adapter: Adapter,
        generator: Generator,
        on_epoch: Callable[[int, int], object] = lambda epoch, epochs: None,
    ) -> None:
        self._method = method
        self._model = model
        self._adapter = adapter
        self._generator = generator
        self._on_epoch = on_epoch
        self._gradient: GradientMethod | None = None
        self._averages: SWA | None = None

    def backward(self, closure: Closure, *, optimizer: Optimizer | None = None) -> Tensor:
        """Leave the method's gradients in ``.grad``; call ``optimizer.step()`` afterwards.

        Args:
            closure: Runs the forward pass and returns the loss, or the loss and the output, which
                some methods need. Called once or several times, each time with the neurons reset.
            optimizer: The optimizer of the step; some methods use its momentum.

        Returns:
            The loss, detached.
        """
        if self._gradient is None:
            self._gradient = self._method.make(
                self._model,
                adapter=self._adapter,
                generator=self._generator,
                optimizer=optimizer,
            )
        else:
            self._gradient.after_step()
        return self._gradient.backward(closure)

    def epoch_ended(self, epoch: int, epochs: int) -> None:
        """Mark the end of an epoch; weight averaging happens here.

        Args:
            epoch: Number of the epoch that has just ended, counted from 0.
            epochs: Total number of epochs.
        """
        self._after_step()
        if self._method.averaged:
            if self._averages is None:
                start = epochs - max(1, round(epochs / 4))
                self._averages = SWA(self._model, start=start, adapter=self._adapter)
            self._averages.update(epoch)
        self._on_epoch(epoch, epochs)

    def finished(self, loader: Iterable[Any]) -> nn.Module:
        """Return the trained network.

        Args:
            loader: Training batches, for the running statistics of averaged weights.

        Raises:
            ValueError: If weights should have been averaged but :meth:`epoch_ended` was never
                called.
        """
        self._after_step()
        self._adapter.reset_state(self._model)
        if not self._method.averaged:
            return self._model
        if self._averages is None or self._averages.count == 0:
            raise ValueError(
                "no weights were averaged. Call method.epoch_ended(epoch, epochs) after every "
                "epoch of the training function, with epochs counted from 0."
            )
        device = next(self._model.parameters()).device
        return self._averages.finish(loader, device=device)

    def _after_step(self) -> None:
        """Do what the method does to weights between a step and whatever looks at them next."""
        if self._gradient is not None:
            self._gradient.after_step()


Train: TypeAlias = Callable[[nn.Module, Iterable[Any], Steps], object]
"""Trains a network in place: ``train(model, loader, method)``."""
