"""Stochastic weight averaging that knows about neuron state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from spikewvat.adapters import Adapter, ResetState, adapter_for, check_model
from spikewvat.adapters.copying import copied
from spikewvat.adapters.modes import modes_kept
from spikewvat.adapters.torch import batch_norms
from spikewvat.errors import DataError


class SWA:
    """Averages the weights of the epochs from ``start`` on, with equal weight.

    Built on :class:`torch.optim.swa_utils.AveragedModel`. Neuron state is reset before the
    model is copied, which raises on a live network otherwise, and before every pass that
    refreshes batch norm, which would carry membrane potentials from batch to batch otherwise.

    Args:
        model: The model being trained, unwrapped.
        start: First epoch (counted from 0) whose weights are averaged; 0 averages from scratch.
        adapter: Defaults to the adapter for the model's framework.
        reset_state: Resets layers that no adapter knows (see :func:`adapter_for`).

    Raises:
        ValueError: If ``start`` is negative.

    References:
        Averaging Weights Leads to Wider Optima and Better Generalization (Izmailov et al., 2018),
        Algorithm 1, https://arxiv.org/abs/1803.05407

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> swa = SWA(model)
        >>> for epoch, weight in enumerate([1.0, 4.0, 2.0, 9.0]):
        ...     _ = nn.init.constant_(model.weight, weight)
        ...     swa.update(epoch)
        >>> swa.model.weight.item()
        4.0
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        start: int = 0,
        adapter: Adapter | None = None,
        reset_state: ResetState | None = None,
    ) -> None:
        check_model(model, type(self).__name__)
        if start < 0:
            raise ValueError(f"start must be an epoch of at least 0, got {start!r}.")
        self.start = start
        self._source = model
        self._adapter = adapter or adapter_for(model, reset_state=reset_state)
        self._adapter.reset_state(model)
        self._averaged = AveragedModel(copied(model))

    @property
    def model(self) -> nn.Module:
        """The averaged model; equal to the trained one until the first update."""
        module = self._averaged.module
        assert isinstance(module, nn.Module)  # for the type checker: Module.__getattr__ is wide
        return module

    @property
    def count(self) -> int:
        """How many epochs have been averaged."""
        return int(self._averaged.n_averaged)

    def update(self, epoch: int) -> None:
        """Take the weights after ``epoch`` (counted from 0) into the average.

        Args:
            epoch: The epoch that has just ended; ignored while it is before ``start``.
        """
        if epoch < self.start:
            return
        self._adapter.reset_state(self._source)
        self._adapter.reset_state(self.model)
        self._averaged.update_parameters(self._source)

    def finish(self, loader: Iterable[Any], *, device: torch.device | None = None) -> nn.Module:
        """Recompute batch-norm statistics for the averaged weights and return the model.

        Args:
            loader: Training batches (see :func:`refresh_batch_norm`).
            device: Where to move the inputs; by default they stay.

        Returns:
            The averaged model, neuron state reset.

        Raises:
            DataError: If the loader yields nothing, or batches that the model does not take.
        """
        refresh_batch_norm(self.model, loader, adapter=self._adapter, device=device)
        return self.model

    def state_dict(self) -> dict[str, Any]:
        """Return the average and how many epochs it holds."""
        self._adapter.reset_state(self.model)
        return {"averaged": dict(self._averaged.state_dict())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._adapter.reset_state(self.model)
        self._averaged.load_state_dict(state["averaged"])


def refresh_batch_norm(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    adapter: Adapter | None = None,
    device: torch.device | None = None,
) -> None:
    """Recompute running statistics with one pass over the data, as the mean over batches.

    Neuron state is reset before every batch. Layers that were frozen, in evaluation mode while the
    model trains, keep their statistics. Modes and momenta are as before afterwards, and after an
    exception so are the statistics. Does nothing without batch norm.

    Args:
        model: The model whose statistics are replaced.
        loader: Training batches: a tensor, a tuple or list that begins with the input, or a
            mapping whose keys are parameters of the model's ``forward``.
        adapter: Defaults to the adapter for the model's framework.
        device: Where to move the inputs; by default they stay.

    Raises:
        DataError: If the loader yields nothing, or batches that the model does not take.

    References:
        Averaging Weights Leads to Wider Optima and Better Generalization (Izmailov et al., 2018),
        section 3.2; torch.optim.swa_utils.update_bn, which knows no state and no frozen layers.
    """
    layers = [m for m in batch_norms(model) if m.training or not model.training]
    if not layers:
        return
    adapter = adapter or adapter_for(model)
    frozen = [m for m in batch_norms(model) if m not in layers]
    momenta = [layer.momentum for layer in layers]
    buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
    saved = [buffer.clone() for buffer in buffers]
    batches = 0
    try:
        with modes_kept(model), torch.no_grad():
            model.train()
            for layer in frozen:
                layer.eval()
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the mean over batches
            for batch in loader:
                adapter.reset_state(model)
                _run(model, batch, device)
                batches += 1
        if batches == 0:
            raise DataError(
                "the loader of the training batches yields nothing, so batch norm has no "
                "statistics. Pass a DataLoader or a list: an iterator can be used up."
            )
    except BaseException:
        for buffer, value in zip(buffers, saved, strict=True):
            buffer.copy_(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        adapter.reset_state(model)


def _run(model: nn.Module, batch: Any, device: torch.device | None) -> None:
    """Run a model on the inputs of a batch."""

    def moved(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) and device is not None else value

    if isinstance(batch, Mapping):
        known = inspect.signature(model.forward).parameters
        given = {key: moved(value) for key, value in batch.items() if key in known}
        if not given:
            raise DataError(
                f"a batch has the keys {', '.join(map(repr, batch))}, none of which is a parameter "
                f"of the model's forward ({', '.join(known)}). Yield (inputs, labels)."
            )
        model(**given)
        return
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(inputs, Tensor):
        raise DataError(
            f"a batch is a {type(batch).__name__} without a tensor in front, expected inputs, or a "
            "tuple that begins with them."
        )
    model(moved(inputs))


def decay_factor(epoch: int, *, horizon: int, ratio: float) -> float:
    r"""Return the learning-rate factor of an epoch: constant, then linear, then constant.

    With :math:`t = e / N` and ratio :math:`q`: 1 for :math:`t \le 0.5`,
    :math:`1 - (1 - q)(t - 0.5) / 0.4` up to :math:`t = 0.9`, then :math:`q`.

    Args:
        epoch: Epoch e, counted from 0.
        horizon: N in epochs: all epochs for plain training, the first averaged epoch for SWA.
        ratio: Last learning rate over the first.

    Returns:
        The factor for ``torch.optim.lr_scheduler.LambdaLR``.

    Raises:
        ValueError: If ``horizon`` is below 1 or ``ratio`` negative.

    References:
        The schedule of the code of Izmailov et al., 2018, https://arxiv.org/abs/1803.05407

    Example:
        >>> [round(0.01 * decay_factor(e, horizon=150, ratio=0.5), 6) for e in (75, 100, 120, 135)]
        [0.01, 0.007917, 0.00625, 0.005]
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 epoch, got {horizon!r}.")
    if not ratio >= 0:
        raise ValueError(f"ratio must be at least 0, got {ratio!r}.")
    t = epoch / horizon
    if t <= 0.5:
        return 1.0
    if t > 0.9:
        return ratio
    return 1 - (1 - ratio) * (t - 0.5) / 0.4


def step_factor(epoch: int, *, horizon: int) -> float:
    """Return the learning-rate factor of an epoch: a tenth from 60, 80 and 90 % on, each time.

    Args:
        epoch: Counted from 0.
        horizon: Number of all epochs.

    Returns:
        The factor for ``torch.optim.lr_scheduler.LambdaLR``.

    Raises:
        ValueError: If ``horizon`` is below 1.

    References:
        The schedule of the ANNs of Rathi et al., 2020, https://arxiv.org/abs/2005.01807

    Example:
        >>> [round(0.01 * step_factor(e, horizon=200), 6) for e in (119, 120, 160, 180)]
        [0.01, 0.001, 0.0001, 1e-05]
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 epoch, got {horizon!r}.")
    passed = sum(100 * epoch >= percent * horizon for percent in (60, 80, 90))
    return float(0.1**passed)


def cosine_factor(epoch: int, *, horizon: int) -> float:
    r"""Return the learning-rate factor of an epoch: half a cosine, after a first epoch at a tenth.

    .. math:: \tfrac{1}{2} \left(1 + \cos(\pi e / N)\right), \qquad 0.1 \text{ for } e = 0

    Deep networks without normalisation layers need the first epoch to get going.

    Args:
        epoch: Epoch e, counted from 0.
        horizon: Number N of all epochs.

    Returns:
        The factor for ``torch.optim.lr_scheduler.LambdaLR``.

    Raises:
        ValueError: If ``horizon`` is below 1.

    References:
        SGDR (Loshchilov and Hutter, 2017), Eq. 5 without restarts, https://arxiv.org/abs/1608.03983

    Example:
        >>> [round(cosine_factor(e, horizon=40), 3) for e in (0, 1, 20, 39)]
        [0.1, 0.998, 0.5, 0.002]
    """
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1 epoch, got {horizon!r}.")
    return 0.1 if epoch == 0 else (1 + math.cos(math.pi * epoch / horizon)) / 2


def exponential_factor(epoch: int, *, decay: float) -> float:
    """Return the learning-rate factor of an epoch: the decay to the power of the epoch.

    Args:
        epoch: Counted from 0.
        decay: Factor from one epoch to the next, above 0 and at most 1.

    Returns:
        The factor for ``torch.optim.lr_scheduler.LambdaLR``.

    Raises:
        ValueError: If ``decay`` is out of range.

    Example:
        >>> [round(1e-4 * exponential_factor(e, decay=0.95), 9) for e in (0, 1, 2)]
        [0.0001, 9.5e-05, 9.025e-05]
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be above 0 and at most 1, got {decay!r}.")
    return float(decay**epoch)
