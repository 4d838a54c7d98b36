"""Fine-tuning of a converted network with surrogate gradients, if wanted under weight variation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewvat.conversion.balance import images_of
from spikewvat.conversion.network import SpikingNetwork
from spikewvat.training import GradientMethod, Plain
from spikewvat.training.averaging import SWA

Loss = Callable[[Tensor, Tensor], Tensor]


def potential_cross_entropy(
    output: Tensor, labels: Tensor, *, time_steps: int | None = None
) -> Tensor:
    r"""Cross-entropy of the output layer's accumulated potential.

    .. math:: L = \mathrm{CE}(U_T / T, y) \quad\text{or, with time_steps,}\quad \mathrm{CE}(U_T, y)

    Args:
        output: Mean potentials U/T ``[B, classes]``, as a converted network returns them, or the
            outputs of every step ``[T, B, classes]``, which are averaged.
        labels: Class indices ``[B]``, int64.
        time_steps: Number of steps T, to use the accumulated potential U instead of its mean, as
            the official code of 2021 does; gradients then grow with T.

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


class Encoded(nn.Module):
    """A converted network that takes input already encoded by its own coding.

    Args:
        snn: The network.
    """

    def __init__(self, snn: SpikingNetwork) -> None:
        super().__init__()
        self.snn = snn

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores [B, classes] for an input over time."""
        return self.snn.run(inputs)


def finetuning_optimizer(
    snn: nn.Module, *, lr: float = 1e-4, weight_decay: float = 5e-4
) -> torch.optim.Optimizer:
    """Return the optimizer for the network's trainable parameters, by default as published.

    Args:
        snn: The network.
        lr: Learning rate.
        weight_decay: Weight decay.

    Returns:
        Adam with AMSGrad.
    """
    learned = [parameter for parameter in snn.parameters() if parameter.requires_grad]
    return torch.optim.Adam(learned, lr, weight_decay=weight_decay, amsgrad=True)


def finetune(
    snn: nn.Module,
    loader: Iterable[Any],
    *,
    epochs: int = 10,
    method: GradientMethod | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss = potential_cross_entropy,
    swa: SWA | None = None,
    on_epoch: Callable[[int, float], object] | None = None,
) -> list[float]:
    """Train a converted network by spike-timing-dependent backpropagation.

    This is a thin loop over existing parts; in your own loop, write
    ``inputs = snn.encode(images)`` and ``wvat.backward(lambda: loss(snn.run(inputs), labels))``.
    Also works for networks made by SpikingJelly's ``ann2snn``, if they are wrapped to run over
    time.

    Args:
        snn: The network, trained in place with the surrogate of its dynamics.
        loader: Training batches ``(images, labels)``.
        epochs: Number of epochs, at least 1.
        method: Gradient method, such as ``WVAT(snn, device)``; plain training by default.
        optimizer: Defaults to that of :func:`finetuning_optimizer`.
        loss: Function from output and labels to a scalar.
        swa: Averages the weights after each epoch; the averaged network is ``swa.model``.
        on_epoch: Called after each epoch with its number, from 0, and its mean loss.

    Returns:
        Mean training loss of each epoch.

    Raises:
        ValueError: If ``epochs`` is below 1, the loader yields nothing, or the loss is not finite.
        TypeError: If a batch is not a pair (images, labels).
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs!r}.")
    method = method or Plain(snn)
    optimizer = optimizer or finetuning_optimizer(snn)
    model = Encoded(snn) if isinstance(snn, SpikingNetwork) else snn
    training = snn.training
    losses = []
    try:
        snn.train()
        for epoch in range(epochs):
            total, count = 0.0, 0
            for batch in loader:
                images, labels = _pair(batch, snn)
                # Encoded once: all passes of a step see the same spikes.
                inputs = snn.encode(images) if isinstance(snn, SpikingNetwork) else images

                def closure(inputs: Tensor = inputs, labels: Tensor = labels) -> Any:
                    output = model(inputs)
                    return loss(output, labels), output

                optimizer.zero_grad()
                value = method.backward(closure)
                optimizer.step()
                method.after_step()
                total += float(value) * len(labels)
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
        method.adapter.reset_state(snn)
        snn.train(training)
    return losses


def _pair(batch: Any, model: nn.Module) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise TypeError(f"a batch is {type(batch).__name__}, expected a pair (images, labels).")
    images = images_of(batch, model)
    return images, torch.as_tensor(batch[1]).to(images.device)
