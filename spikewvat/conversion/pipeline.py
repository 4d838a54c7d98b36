"""Convert a trained ANN to a spiking network in one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from spikewvat import files
from spikewvat.adapters.modes import evaluating
from spikewvat.conversion.balance import Balancing, balance, images_of
from spikewvat.conversion.coding import Coding, Direct, Poisson
from spikewvat.conversion.correction import Correction
from spikewvat.conversion.graph import trace
from spikewvat.conversion.layers import Add, Affine, Neurons
from spikewvat.conversion.network import SpikingNetwork, check_time_steps
from spikewvat.conversion.start import STARTS, choose_start
from spikewvat.devices.base import DeviceModel
from spikewvat.errors import UnsupportedModelError
from spikewvat.spiking.stdb import Dynamics

HYBRID = Dynamics(delayed=True, initial=0.0)
"""Neurons of hybrid conversion, for Poisson() and ``Balancing("steps", 100.0, scaling=0.7)``."""

STEPS = 16
"""The default number of steps of networks without QCFS layers."""

_COMPARED = 64  # images on which the traced network is compared with the ANN
_TOLERANCE = 1e-3  # of the largest score
_ROUNDED = 0.1  # share of the images that rounding may take to another level
_STEP = 0.1  # of the largest score that such a level may be worth
_FEWEST = 4  # images of which one may be such


def convert(
    ann: nn.Module,
    loader: Iterable[Any],
    *,
    time_steps: int | None = None,
    balancing: Balancing = Balancing(),  # noqa: B008 -- frozen
    coding: Coding = Direct(),  # noqa: B008 -- frozen
    dynamics: Dynamics | None = None,
    starts: Sequence[float] | None = None,
    leak: float = 1.0,
    unit_spikes: bool = False,
    analog: bool | None = None,
    variation: DeviceModel | None = None,
    checkpoint: Path | str | None = None,
    chunk: int | None = None,
    correction: Correction | None = None,
    generator: Generator | None = None,
) -> SpikingNetwork:
    """Convert a ReLU network to a spiking network.

    The network may be any chain or graph of convolutions, dense layers, pooling, dropout, batch
    norm, reshaping, upsampling, additions, concatenations, constants, and activations that rectify:
    ReLU, ReLU6, Hardtanh, clamp and :class:`QCFS`. Batch norm is folded into the preceding layer,
    and activations are replaced by neurons with balanced thresholds, or with learned ones; the ANN
    is not changed. To use another number of steps, change ``time_steps`` and balance again: by
    default thresholds are fitted to it.

    Args:
        ann: The trained network, from images to class scores.
        loader: Calibration images, ``[B, ...]`` or a tuple that starts with them: a few hundred
            training images, not test images.
        time_steps: Number of steps T in a pass; ``None`` is the levels L of the network's QCFS
            layers, or 16 where there are none.
        balancing: How thresholds are chosen.
        coding: How images drive the network: as a constant current, or as Poisson spikes.
        dynamics: How neurons integrate and fire; ``None`` is ``Dynamics()``.
        starts: Where potentials may start, as shares of the threshold: the first one stays unless
            another is better on held-out calibration images (:func:`choose_start`). ``None``
            leaves them where ``dynamics`` says, at half a threshold; with ``variation`` and without
            ``dynamics``, it is ``STARTS``: they start at 0 if that suits the chips better.
        leak: Share of the potential left after a step, in (0, 1]; 1 is integrate-and-fire.
        unit_spikes: Use spikes of size 1 instead of the threshold, as published for hybrid
            conversion. Currents then shrink from layer to layer; this is valid only for chains
            without biases.
        analog: What becomes of synaptic layers that follow each other without an activation.
            ``None`` merges two dense layers, or convolutions of which one looks at single places,
            into one; elsewhere, as in linear bottlenecks, the second layer receives analog values
            in every step, which the chip must be able to hand over, and a warning says so.
            ``True`` hands over everywhere and keeps the ANN's weights, ``False`` refuses what
            cannot be merged. ``print(snn)`` names all such layers.
        variation: Device model; thresholds are chosen over its chips.
        checkpoint: File for intermediate results of balancing.
        chunk: Number of steps that a layer runs at once; see :class:`SpikingNetwork`.
        correction: Corrects each image's spikes, for few steps: :class:`OffsetSpikes` or
            :class:`SilentResiduals`, which both cost more steps than T.
        generator: Source of randomness for chips and coding during balancing.

    Returns:
        The network, in evaluation mode, on the ANN's device.

    Raises:
        UnsupportedModelError: If the ANN contains a layer that cannot be converted, its batch norm
            has no statistics, or a ReLU is missing; the message names the layer.
        ValueError: If an argument is out of range, weights are not finite, or the calibration
            images do not fit.
        TypeError: If a batch holds no tensor.

    Example:
        >>> import torch
        >>> ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> images = torch.rand(32, 4)
        >>> snn = convert(ann, [images], time_steps=64)
        >>> bool((snn(images) - ann(images)).abs().max() < 0.1)
        True
    """
    snn = unbalanced(
        ann,
        time_steps=time_steps,
        coding=coding,
        dynamics=dynamics or Dynamics(),
        leak=leak,
        unit_spikes=unit_spikes,
        analog=analog,
        chunk=chunk,
        correction=correction,
    )
    images = _Checked(loader, ann, snn, coding)
    if starts is None and dynamics is None and variation is not None:
        starts = STARTS
    if starts is not None:
        choose_start(
            snn, images, starts, balancing=balancing, variation=variation, generator=generator
        )
    balance(
        snn,
        images,
        balancing,
        variation=variation,
        checkpoint=checkpoint,
        generator=generator,
    )
    return snn


def unbalanced(
    ann: nn.Module,
    *,
    time_steps: int | None = None,
    coding: Coding = Direct(),  # noqa: B008 -- frozen
    dynamics: Dynamics = Dynamics(),  # noqa: B008 -- frozen
    leak: float = 1.0,
    unit_spikes: bool = False,
    analog: bool | None = None,
    chunk: int | None = None,
    correction: Correction | None = None,
) -> SpikingNetwork:
    """Convert a ReLU network to a spiking network without balancing its thresholds.

    Args:
        ann: See :func:`convert` for all arguments.
        time_steps: Number of steps T in a pass; ``None`` takes the levels of QCFS layers.
        coding: How images drive the network.
        dynamics: How neurons integrate and fire.
        leak: Share of the potential left after a step.
        unit_spikes: Use spikes of size 1 instead of the threshold.
        analog: What becomes of synaptic layers that follow each other without an activation.
        chunk: Number of steps that a layer runs at once.
        correction: Corrects each image's spikes.

    Returns:
        The network with thresholds of 1, in evaluation mode, on the ANN's device.

    Raises:
        UnsupportedModelError: As :func:`convert`.
        ValueError: If an argument is out of range, or weights are not finite.
    """
    if time_steps is not None:
        check_time_steps(time_steps)
    _check_weights(ann)

    def make(ceiling: Tensor | None, levels: int | None) -> Neurons:
        return Neurons(dynamics, leak=leak, unit=unit_spikes, ceiling=ceiling, levels=levels)

    with evaluating(ann):
        graph = trace(ann, make, analog=analog)
    if analog is None and graph.handed_over:
        pairs = ", ".join(f"{b!r} to {path!r}" for path, b in graph.handed_over.items())
        warnings.warn(
            f"no activation between synaptic layers: currents pass as analog values from {pairs}, "
            "which the chip must be able to hand over in every step. Pass analog=True if it is, "
            "analog=False to refuse such networks.",
            stacklevel=3,
        )
    if unit_spikes:
        _refuse_scales(graph.modules)
    if time_steps is None:
        time_steps = _levels(graph.modules)
    snn = SpikingNetwork(graph, coding, time_steps, chunk=chunk, correction=correction).eval()
    first = next(ann.parameters())
    snn.to(first.device)
    for neurons in snn.neurons().values():
        neurons.to(first.dtype)
    return snn


def restore(ann: nn.Module, path: Path | str, **options: Any) -> SpikingNetwork:
    """Load a converted network from its file, without calibration images.

    Args:
        ann: A network like the one that was converted; its weights do not matter.
        path: A file written by ``files.save(path, snn.state_dict())`` or ``spikewvat convert``.
        **options: Arguments of :func:`convert` that describe the network: ``time_steps``,
            ``coding``, ``dynamics``, ``leak``, ``unit_spikes``, ``analog``, ``chunk``,
            ``correction``.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: If the file is missing, damaged or belongs to another network.
        UnsupportedModelError: As :func:`convert`.
        ValueError: If an argument is out of range.

    Example:
        >>> from tempfile import mkdtemp
        >>> def make_model():
        ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> images = torch.rand(32, 4)
        >>> snn = convert(make_model(), [images], time_steps=8)
        >>> path = Path(mkdtemp()) / "snn.safetensors"
        >>> files.save(path, snn.state_dict())
        >>> torch.equal(restore(make_model(), path, time_steps=8)(images), snn(images))
        True
    """
    state = files.load(path)
    for module in ann.modules():
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked.fill_(1)  # statistics are folded into what is loaded
    snn = unbalanced(ann, **options)
    neurons = snn.neurons()
    for node in snn.nodes:
        if node.name in neurons:
            neurons[node.name].shape_like(state, f"layers.{node.path}.")
    files.load_state(snn, state, source=repr(str(path)))
    return snn


class _Checked:
    """Calibration batches, each checked against the network before it is used."""

    def __init__(
        self, loader: Iterable[Any], ann: nn.Module, snn: SpikingNetwork, coding: Coding
    ) -> None:
        self._loader, self._snn, self._coding = loader, snn, coding
        self._ann: nn.Module | None = ann  # until it is compared with

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self._loader:
            images = images_of(batch, self._snn)
            if self._ann is not None:
                _compare(self._ann, self._snn, images[:_COMPARED])
                self._ann = None
            largest = float(images.abs().max()) if images.numel() else 0.0
            if isinstance(self._coding, Poisson) and largest > 1:
                raise ValueError(
                    f"calibration images reach {largest:.3g} in magnitude, but Poisson coding "
                    "saturates at 1. Train the ANN on images normalised to [-1, 1], or use "
                    "coding=Direct()."
                )
            yield images


def _levels(modules: dict[str, nn.Module]) -> int:
    """Return the levels of all neurons, which are the steps that the ANN was trained for."""
    found = {m.levels for m in modules.values() if isinstance(m, Neurons)}
    if found == {None}:
        return STEPS
    if len(found) > 1:
        shown = ", ".join(sorted("none" if level is None else str(level) for level in found))
        raise ValueError(
            f"time_steps=None needs activations of one number of levels, but they are {shown}. "
            "Pass time_steps, such as 8."
        )
    (levels,) = found
    assert levels is not None
    return levels


def _check_weights(ann: nn.Module) -> None:
    """Raise UnsupportedModelError unless there are weights and all are initialised."""
    unmade = [name for name, parameter in ann.named_parameters() if is_lazy(parameter)]
    if unmade:
        raise UnsupportedModelError(
            f"parameter {unmade[0]!r} is lazy and has no shape yet. Run the model once."
        )
    if not any(parameter.dim() > 1 for parameter in ann.parameters()):
        raise UnsupportedModelError(
            f"{type(ann).__name__} has no synaptic weights to convert. Pass the trained network."
        )


def _compare(ann: nn.Module, snn: SpikingNetwork, images: Tensor) -> None:
    """Raise UnsupportedModelError unless the traced network gives the same output as the ANN.

    Tracing does not see hooks, randomness or operations hidden from torch. Where activations have
    levels, rounding alone takes some images to another one, which is no fault of the tracing.
    """
    stepped = any(neurons.levels is not None for neurons in snn.neurons().values())
    with evaluating(ann), torch.no_grad(), torch.random.fork_rng():
        try:
            expected, found = ann(images.clone()), snn.analog(images.clone())
            alone = [
                snn.analog(images[i : i + 1].clone())
                for i in range(min(len(images), 1 + 2 * stepped))
            ]
        except RuntimeError:
            return  # images that do not fit: balancing says so
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        raise UnsupportedModelError(
            f"the model returns {type(expected).__name__} where its traced operations return "
            f"scores of shape {tuple(found.shape)}. Return one tensor of class scores."
        )
    largest = float(expected.abs().max())
    allowed = largest * max(_TOLERANCE, 64 * torch.finfo(found.dtype).eps)
    if not any(_near(one, found[i : i + 1], allowed) for i, one in enumerate(alone)):
        raise UnsupportedModelError(
            "the scores of an image depend on the other images of its batch, but time steps are "
            "run as samples of one batch. Let every operation leave the axis of the batch as it is."
        )
    rows = expected.shape[0] if expected.dim() else 1
    errors = (found - expected).abs().reshape(rows, -1).amax(1)
    error, images_off = float(errors.max()), int((errors > allowed).sum())
    few = max(1, _ROUNDED * rows) if rows >= _FEWEST else 0
    rounded = stepped and images_off <= few
    if not error <= (largest * _STEP if rounded else allowed):
        raise UnsupportedModelError(
            f"the converted network does not reproduce the model: scores differ by "
            f"{error:.3g}, of at most {largest:.3g}. Something in its forward pass cannot be "
            "traced, such as a hook that changes values, randomness, or a tensor changed in "
            "place through an alias. Write it with torch.nn layers only."
        )


def _near(scores: Tensor, expected: Tensor, allowed: float) -> bool:
    same = scores.shape == expected.shape
    return same and float((scores - expected).abs().max()) <= allowed


def _refuse_scales(modules: dict[str, nn.Module]) -> None:
    for path, module in modules.items():
        if isinstance(module, Add):
            raise ValueError(
                f"unit_spikes=True needs a chain, but {path!r} adds two branches, whose spikes "
                "are worth different activations. Leave unit_spikes=False."
            )
        if isinstance(module, Affine) and bool((module.shift != 0).any()):
            raise ValueError(
                f"unit_spikes=True needs layers without shifts, but {path!r} has one, which would "
                "outweigh its scaled-down currents. Leave unit_spikes=False."
            )
    for path, module in modules.items():
        if not isinstance(module, Neurons) and getattr(module, "bias", None) is not None:
            raise ValueError(
                f"unit_spikes=True needs layers without bias, but {path!r} has one, which would "
                "outweigh its scaled-down currents. Leave unit_spikes=False."
            )
