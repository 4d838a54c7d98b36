"""Training methods that a training function of one's own is run with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from spikewvat.adapters import Adapter
from spikewvat.devices import Gaussian
from spikewvat.training import WVAT, Closure, GradientMethod
from spikewvat.training.averaging import SWA

Loader: TypeAlias = Iterable[Any]
"""Batches ``(inputs, labels)``."""


class Make(Protocol):
    """Makes what takes the gradients for a network."""

    def __call__(
        self,
        model: nn.Module,
        *,
        adapter: Adapter,
        generator: Generator,
        optimizer: Optimizer | None,
    ) -> GradientMethod | None:
        """Return it; None trains plainly."""


@dataclass(frozen=True)
class Method:
    """A training method to compare.

    Args:
        make: Makes what takes the gradients, called in the first step with the network and
            ``adapter``, ``generator`` and ``optimizer``, see :meth:`Steps.backward`; None trains
            plainly.
        averaged: Average the weights of the last quarter of the epochs.
    """

    make: Make | None = None
    averaged: bool = False


def _wvat(model: nn.Module, *, adapter: Adapter, generator: Generator, **_: object) -> WVAT:
    return WVAT(model, Gaussian(sigma=0.10), adapter=adapter, generator=generator)


METHODS: Mapping[str, Method] = {
    "plain": Method(),
    "SWA": Method(averaged=True),
    "WVAT": Method(_wvat, averaged=True),
}
"""What is compared by default."""


class Steps:
    """What a training function calls in every step and after every epoch."""

    def __init__(
        self, method: Method, model: nn.Module, adapter: Adapter, generator: Generator
    ) -> None:
        self._method = method
        self._model = model
        self._adapter = adapter
        self._generator = generator
        self._gradient: GradientMethod | None = None
        self._started = False
        self._averages: SWA | None = None

    def backward(self, closure: Closure, *, optimizer: Optimizer | None = None) -> Tensor:
        """Leave the method's gradients in ``.grad``; call ``optimizer.step()`` afterwards.

        Args:
            closure: Runs the forward pass and returns the loss, or the loss and the output, which
                some methods need; called once or several times, each time from fresh neuron state.
            optimizer: What steps; some methods look at its momentum.

        Returns:
            The loss, detached.
        """
        if not self._started and self._method.make is not None:
            self._gradient = self._method.make(
                self._model,
                adapter=self._adapter,
                generator=self._generator,
                optimizer=optimizer,
            )
        self._started = True
        if self._gradient is not None:
            self._after_step()
            return self._gradient.backward(closure)
        self._adapter.reset_state(self._model)
        result = closure()
        loss = result[0] if isinstance(result, tuple) else result
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def epoch_ended(self, epoch: int, epochs: int) -> None:
        """Take note of an epoch; methods that average weights do it here.

        Args:
            epoch: The one that has ended, counted from 0.
            epochs: How many there will be.
        """
        self._after_step()
        if self._method.averaged:
            if self._averages is None:
                start = epochs - max(1, round(epochs / 4))
                self._averages = SWA(self._model, start=start, adapter=self._adapter)
            self._averages.update(epoch)

    def finished(self, loader: Loader) -> nn.Module:
        """Return the trained network.

        Args:
            loader: Training batches, for the running statistics of averaged weights.

        Raises:
            ValueError: If weights should have been averaged but no epoch was noted.
        """
        self._after_step()
        self._adapter.reset_state(self._model)
        if not self._method.averaged:
            return self._model
        if self._averages is None or self._averages.count == 0:
            raise ValueError(
                "nothing was averaged. Call method.epoch_ended(epoch, epochs) after every epoch "
                "of the training function, with epochs counted from 0."
            )
        device = next(self._model.parameters()).device
        return self._averages.finish(loader, device=device)

    def _after_step(self) -> None:
        """Do what the method does to weights between a step and whatever looks at them next."""
        if self._gradient is not None:
            self._gradient.after_step()


Train: TypeAlias = Callable[[nn.Module, Loader, Steps], object]
"""Trains a network in place: ``train(model, loader, method)``."""
