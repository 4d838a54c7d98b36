"""Fine-tuning a converted network by surrogate gradients, under weight variation if asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from spikewvat.adapters import adapter_for
from spikewvat.conversion.balance import images_of
from spikewvat.conversion.network import SpikingNetwork
from spikewvat.devices.base import DeviceModel
from spikewvat.training import WVAT, GradientMethod
from spikewvat.training.averaging import SWA

Loss = Callable[[Tensor, Tensor], Tensor]


def potential_cross_entropy(
    output: Tensor, labels: Tensor, *, time_steps: int | None = None
) -> Tensor:
    r"""Cross-entropy of the output layer's accumulated potential.

    .. math:: L = \mathrm{CE}(U_T / T, y) \quad\text{or, with time_steps,}\quad \mathrm{CE}(U_T, y)

    Args:
        output: Mean potentials U/T ``[B, classes]``, as a converted network returns them, or
            outputs of every step ``[T, B, classes]``, which are averaged.
        labels: Class indices ``[B]``, int64.
        time_steps: Take the undivided potential U of so many steps, as the official code of 2021
            does; gradients grow with T.

    Returns:
        The mean over the batch, a 0-dim tensor.

    References:
        Rathi et al., 2020, section 3, https://arxiv.org/abs/2005.01807

    Example:
        >>> round(potential_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item(), 4)
        0.6931
    """
    scores = output.mean(0) if output.dim() == 3 else output
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return functional.cross_entropy(scores if time_steps is None else scores * time_steps, labels)


def finetune(
    snn: nn.Module,
    loader: Iterable[Any],
    *,
    epochs: int = 10,
    variation: DeviceModel | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss = potential_cross_entropy,
    swa: SWA | None = None,
    wvat: GradientMethod | None = None,
    on_epoch: Callable[[int, float], object] | None = None,
    generator: Generator | None = None,
) -> list[float]:
    """Train a converted network by spike-timing-dependent backpropagation.

    A thin loop over existing parts; in a loop of your own, write
    ``inputs = snn.encode(images)`` and ``wvat.backward(lambda: loss(snn.run(inputs), labels))``.
    Works for a network that SpikingJelly's ``ann2snn`` made too, if it is wrapped to run over time.

    Args:
        snn: The network; trained in place. Its surrogate is that of its dynamics.
        loader: Training batches ``(images, labels)``.
        epochs: Passes over the data, at least 1.
        variation: Train under this weight variation, by WVAT with its defaults.
        optimizer: By default Adam, learning rate 1e-4, weight decay 5e-4 and AMSGrad as published.
        loss: From output and labels to a scalar.
        swa: Average the weights after each epoch; take ``swa.model`` in the end.
        wvat: A training method with settings of your own, instead of ``variation``.
        on_epoch: Called after each epoch with its number from 0 and its mean loss.
        generator: Source of the variation.

    Returns:
        Mean training loss of each epoch.

    Raises:
        ValueError: If ``epochs`` is below 1, both ``variation`` and ``wvat`` are given, the
            loader yields nothing, or the loss is not finite.
        TypeError: If a batch is no pair (images, labels).
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs!r}.")
    if variation is not None and wvat is not None:
        raise ValueError("got variation and wvat, expected one of them. WVAT holds its device.")
    if variation is not None:
        wvat = WVAT(snn, variation, generator=generator)
    adapter = adapter_for(snn) if wvat is None else wvat.adapter
    optimizer = optimizer or torch.optim.Adam(
        [p for p in snn.parameters() if p.requires_grad], lr=1e-4, weight_decay=5e-4, amsgrad=True
    )
    training = snn.training
    losses = []
    try:
        snn.train()
        for epoch in range(epochs):
            total, count = 0.0, 0
            for batch in loader:
                images, labels = _pair(batch, snn)
                optimizer.zero_grad()
                # Encoded once: clean and displaced pass see the same spikes.
                forward, inputs = _encoded(snn, images)

                def closure(
                    forward: Callable[[Tensor], Tensor] = forward,
                    inputs: Tensor = inputs,
                    labels: Tensor = labels,
                ) -> tuple[Tensor, Tensor]:
                    output = forward(inputs)
                    return loss(output, labels), output

                if wvat is None:
                    adapter.reset_state(snn)
                    value, _ = closure()
                    value.backward()  # type: ignore[no-untyped-call]
                else:
                    value = wvat.backward(closure)
                optimizer.step()
                if wvat is not None:
                    wvat.after_step()
                total += float(value.detach()) * len(labels)
                count += len(labels)
            if count == 0:
                raise ValueError("the loader yields no batch, expected training images.")
            losses.append(total / count)
            if losses[-1] != losses[-1]:
                raise ValueError(
                    f"the loss is NaN after epoch {epoch}. Lower the learning rate, or alpha of "
                    "WVAT."
                )
            if swa is not None:
                swa.update(epoch)
            if on_epoch is not None:
                on_epoch(epoch, losses[-1])
    finally:
        adapter.reset_state(snn)
        snn.train(training)
    return losses


def _encoded(snn: nn.Module, images: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the forward pass behind the encoder, and what goes into it."""
    return (snn.run, snn.encode(images)) if isinstance(snn, SpikingNetwork) else (snn, images)


def _pair(batch: Any, model: nn.Module) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"a batch is {type(batch).__name__}, expected a pair (images, labels).")
    images = images_of(batch, model)
    return images, torch.as_tensor(batch[1]).to(images.device)
