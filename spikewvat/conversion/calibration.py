"""Calibration of a single chip's neurons, layer by layer, with the chip's weights held."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spikewvat.adapters.modes import evaluating
from spikewvat.conversion.balance import Balancing, Used, balance, held_out
from spikewvat.conversion.graph import Node
from spikewvat.conversion.layers import Neurons
from spikewvat.conversion.network import SpikingNetwork

_HELD_OUT = 4  # of so many images, one checks the result


@dataclass(frozen=True)
class BiasTargets:
    """What the neurons of a network without variation do on average, and what it answers.

    Args:
        activations: Mean activation of each channel ``[C]``, by layer of neurons.
        probabilities: Class probabilities of the images that check a calibration, ``[N, classes]``.
    """

    activations: dict[str, Tensor]
    probabilities: Tensor


@torch.no_grad()
def bias_targets(snn: SpikingNetwork, loader: Iterable[Any]) -> BiasTargets:
    """Measure the targets of calibrations such as :func:`calibrate_biases`, with the ANN's weights.

    Args:
        snn: The network, with weights as they were trained.
        loader: Calibration images, ``[B, ...]`` or a tuple that starts with them; yields the same
            batches in every pass.

    Returns:
        The targets: one number for each channel of neurons.

    Raises:
        ValueError: If there are no images, or only so few that none are left for the check, or
            spikes carry no scale (``unit_spikes=True``).
        TypeError: If a batch holds no tensor.
    """
    if any(neurons.unit for neurons in snn.neurons().values()):
        raise ValueError(
            "calibration compares spikes with the ANN's activations, but unit_spikes=True. "
            "Convert with unit_spikes=False."
        )
    means: dict[str, _Mean] = {name: _Mean() for name in snn.neurons()}

    def observe(node: Node, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
        if node.name in means and output is not None:
            means[node.name].add(output)

    probabilities = []
    with evaluating(snn):
        for used, checked in held_out(loader, snn, _HELD_OUT):
            if len(used):
                snn.analog(used, observe)
            if len(checked):
                probabilities.append(snn.analog(checked).softmax(1))
    if not probabilities:
        raise ValueError(f"expected at least {_HELD_OUT} calibration images, got fewer.")
    found = {name: mean.value() for name, mean in means.items()}
    return BiasTargets(found, torch.cat(probabilities))


def calibrate_biases(snn: SpikingNetwork, loader: Iterable[Any], targets: BiasTargets) -> bool:
    r"""Shift the currents of each channel by what its mean activation misses.

    .. math:: b_c \leftarrow b_c + \mathrm E[a_c] -
        \mathrm E\Big[\frac{\theta_c}T \sum_t o_{t,c}\Big]

    Layers follow each other from the input, each measured with those below it calibrated. Call it
    while the network holds a chip's weights; with weights as they were trained, it corrects what
    T steps lose. One image of four is not used for the shifts: they are taken back if the class
    probabilities of these images do not come closer to the targets.

    Args:
        snn: The network; ``Neurons.bias`` of its layers is changed.
        loader: The images that ``targets`` was measured with.
        targets: From :func:`bias_targets`.

    Returns:
        Whether the shifts were kept.

    Raises:
        ValueError: If ``targets`` belong to another network or other images.
        TypeError: If a batch holds no tensor.

    References:
        A Free Lunch From ANN (Li et al., 2021), section 4, https://arxiv.org/abs/2106.06984

    Example:
        >>> from torch import Generator, nn
        >>> from spikewvat import Gaussian, adapter_for
        >>> from spikewvat.conversion import convert
        >>> from spikewvat.weights import replaced
        >>> images = [torch.rand(64, 4)]
        >>> ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> snn = convert(ann, images, time_steps=8)
        >>> targets = bias_targets(snn, images)
        >>> live = adapter_for(snn).synaptic_weights(snn)
        >>> clean = {name: weight.detach() for name, weight in live.items()}
        >>> chip = Gaussian(0.1).program(clean, generator=Generator().manual_seed(7))
        >>> with replaced(live, chip):
        ...     kept = calibrate_biases(snn, images, targets)
    """

    def shifted(neurons: Neurons, missing: Tensor) -> None:
        neurons.bias = neurons.bias + missing.to(neurons.bias)

    return _calibrated(snn, loader, targets, lambda: _by_layer(snn, loader, targets, shifted))


def calibrate_starts(snn: SpikingNetwork, loader: Iterable[Any], targets: BiasTargets) -> bool:
    r"""Shift where the potentials of each channel start by what its spikes miss in T steps.

    .. math:: v_{0,c} \leftarrow v_{0,c} + T \Big(\mathrm E[a_c] -
        \mathrm E\Big[\frac{\theta_c}T \sum_t o_{t,c}\Big]\Big)

    It brings the charge of :func:`calibrate_biases` before the first step, for neurons without
    leak, and is done and checked alike.

    Args:
        snn: The network; ``Neurons.start`` of its layers is changed.
        loader: The images that ``targets`` was measured with.
        targets: From :func:`bias_targets`.

    Returns:
        Whether the shifts were kept.

    Raises:
        ValueError: If ``targets`` belong to another network or other images.
        TypeError: If a batch holds no tensor.

    References:
        Li et al., 2021, section 4.2 (potential correction), https://arxiv.org/abs/2106.06984
    """

    def shifted(neurons: Neurons, missing: Tensor) -> None:
        share = snn.time_steps * missing / neurons.threshold.detach()
        neurons.start = neurons.start + share.to(neurons.start)

    return _calibrated(snn, loader, targets, lambda: _by_layer(snn, loader, targets, shifted))


def calibrate_thresholds(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    targets: BiasTargets,
    balancing: Balancing = Balancing(learned=True),  # noqa: B008 -- frozen
) -> bool:
    """Choose thresholds for the weights that the network holds, and keep them if that helps.

    Args:
        snn: The network; the thresholds of its neurons are changed.
        loader: The images that ``targets`` was measured with; the check is that of
            :func:`calibrate_biases`.
        targets: From :func:`bias_targets`.
        balancing: How thresholds are chosen.

    Returns:
        Whether the thresholds were kept.

    Raises:
        ValueError: If ``targets`` belong to another network or other images.
        TypeError: If a batch holds no tensor.
    """
    used = Used(loader, snn, _HELD_OUT)
    return _calibrated(snn, loader, targets, lambda: balance(snn, used, balancing))


@torch.no_grad()
def _calibrated(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    targets: BiasTargets,
    change: Callable[[], object],
) -> bool:
    """Change neurons; put them back if the images that check do not come closer to the targets."""
    layers = snn.neurons()
    if targets.activations.keys() != layers.keys():
        raise ValueError(
            f"targets are for {sorted(targets.activations)}, expected {sorted(layers)}. "
            "Use those from bias_targets(...) of the same network."
        )
    before = [(n, n.threshold, n.amplitude, n.start, n.bias) for n in layers.values()]
    fitted = snn.fitted_steps
    with evaluating(snn), torch.random.fork_rng():
        seed = torch.initial_seed()  # equal spikes of the input in every pass
        distance = _distance(snn, loader, targets, seed)
        torch.manual_seed(seed)
        change()
        kept = _distance(snn, loader, targets, seed) < distance
    if not kept:
        snn.fitted_steps = fitted
        for neurons, threshold, amplitude, start, bias in before:
            neurons.threshold, neurons.amplitude = threshold, amplitude
            neurons.start, neurons.bias = start, bias
    return kept


def _by_layer(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    targets: BiasTargets,
    change: Callable[[Neurons, Tensor], None],
) -> None:
    """Change each layer by what its mean activations miss, those below it being changed."""
    seed = torch.initial_seed()
    for name, neurons in snn.neurons().items():
        torch.manual_seed(seed)
        mean = _Mean()
        for used in Used(loader, snn, _HELD_OUT):
            mean.add(_activations(snn, used, name))
        change(neurons, targets.activations[name].to(neurons.threshold) - mean.value())


def _activations(snn: SpikingNetwork, images: Tensor, name: str) -> Tensor:
    """Return the mean outputs [1, B, C, ...] of a layer of neurons over time."""
    found: list[Tensor] = []

    def observe(node: Node, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
        if node.name == name and output is not None:
            found.append(output)

    users = [node.name for node in snn.nodes if name in node.inputs]
    if users:
        snn.observe(images, observe, until=users[0])
    else:
        list(snn.outputs(images, observe=observe))
    return torch.cat(found).mean(0, keepdim=True)


def _distance(snn: SpikingNetwork, loader: Iterable[Any], targets: BiasTargets, seed: int) -> float:
    """Return the cross-entropy to the targets on the images that check."""
    torch.manual_seed(seed)
    scores = torch.cat(
        [snn(checked) for _, checked in held_out(loader, snn, _HELD_OUT) if len(checked)]
    )
    if len(scores) != len(targets.probabilities):
        raise ValueError(
            f"targets were measured with {len(targets.probabilities)} images for the check, but "
            f"the loader yields {len(scores)}. Pass the same images."
        )
    return float(functional.cross_entropy(scores, targets.probabilities.to(scores)))


class _Mean:
    """The mean of each channel over a stream of [T, B, C, ...]."""

    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor) -> None:
        channels = values.movedim(2, 0).flatten(1).double()
        total = channels.sum(1)
        self._total = total if self._total is None else self._total + total
        self._count += channels.shape[1]

    def value(self) -> Tensor:
        if self._total is None:
            raise ValueError("the loader yields no images to measure with. Pass more.")
        return self._total / self._count
