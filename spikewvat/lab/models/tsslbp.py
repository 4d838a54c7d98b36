"""Networks of TSSL-BP neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from spikewvat.spiking.layers import Dropout, SumPool2d
from spikewvat.spiking.tsslbp import TSSL, Conv2d, Linear, Neurons, psp


@dataclass(frozen=True)
class Stage:
    """A convolution of spiking neurons and the pooling after it.

    Args:
        channels: Output channels.
        kernel_size: Side of the kernels.
        padding: Zeros added at every edge.
        pool: Side of the sum pooling; 1 for none.
        scale: Factor of the initial weights.
    """

    channels: int
    kernel_size: int
    padding: int = 0
    pool: int = 1
    scale: float = 1.0


class SpikingNetwork(nn.Module):
    """Layers of TSSL-BP neurons between an input and output currents.

    Still images are shown in every step. The synapse in front of the first layer and that
    layer's weights are both linear, so the weights are then applied once, not once a step.

    Args:
        layers: From input currents to output currents [T, B, classes]; those in front of the
            first :class:`Neurons` must be linear.
        input_shape: Shape of a step of one sample, such as channels, height and width.
        constants: Of all neurons.
        time_steps: How many steps a still image is shown.

    Raises:
        ValueError: If ``time_steps`` is below 1, there are no neurons, or the input has another
            shape.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        *,
        input_shape: Sequence[int],
        constants: TSSL,
        time_steps: int = 5,
    ) -> None:
        super().__init__()
        if time_steps < 1:
            raise ValueError(f"time_steps must be at least 1, got {time_steps!r}.")
        self.layers = nn.Sequential(*layers)
        self.input_shape, self.time_steps = tuple(input_shape), time_steps
        self._tau_syn = constants.tau_syn
        places = [i for i, layer in enumerate(layers) if isinstance(layer, Neurons)]
        if not places:
            raise ValueError("layers has no Neurons, expected some after each layer of weights.")
        self._first = places[0]

    def forward(self, input: Tensor) -> Tensor:
        """Return output currents.

        Args:
            input: Spikes or currents [T, B, C, H, W], or still images [B, C, H, W].

        Returns:
            Post-synaptic currents of the output neurons [T, B, classes]; a class's score is its
            sum over time.
        """
        self._check(input)
        if input.dim() > len(self.input_shape) + 1:
            psc, following = psp(input, self._tau_syn), self.layers[:]
        else:
            currents = self.layers[: self._first](input[None])
            currents = currents.expand(self.time_steps, *currents.shape[1:])
            psc, following = psp(currents, self._tau_syn), self.layers[self._first :]
        output: Tensor = following(psc)
        return output

    def _check(self, input: Tensor) -> None:
        shape, own, dims = tuple(input.shape), self.input_shape, len(self.input_shape)
        if input.dim() in (dims + 1, dims + 2) and shape[-dims:] == own:
            return
        sizes = ", ".join(map(str, own))
        last = input.dim() == dims + 2 and shape[1:-1] == own
        raise ValueError(
            f"input has shape {shape}, expected [T, B, {sizes}] or still images [B, {sizes}]. "
            + ("Time is last: " if last else "Check the data; if time is last, ")
            + "move it to the front with movedim(-1, 0)."
        )


class ConvNet(SpikingNetwork):
    """Stages of convolution and pooling, then dense layers; the official networks of TSSL-BP.

    Args:
        input_shape: Channels, height and width of the input.
        stages: Convolutions, first to last; may be empty.
        hidden: Widths of dense hidden layers.
        classes: Number of output neurons.
        dropout: Probability of silencing a neuron after each stage and hidden layer, in training.
        time_steps: How many steps a still image is shown.
        constants: Time constants and threshold of all neurons.

    Raises:
        ValueError: If the stages leave nothing of the input.

    References:
        TSSL-BP (Zhang & Li, 2020), official code.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        stages: Sequence[Stage] = (),
        hidden: Sequence[int] = (),
        classes: int = 10,
        dropout: float = 0.0,
        time_steps: int = 5,
        constants: TSSL = TSSL(),  # noqa: B008 -- frozen
    ) -> None:
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for stage in stages:
            layers += [
                Conv2d(
                    channels,
                    stage.channels,
                    stage.kernel_size,
                    padding=stage.padding,
                    scale=stage.scale,
                ),
                Neurons(constants),
            ]
            if stage.pool > 1:
                layers.append(SumPool2d(stage.pool))
            if dropout > 0:
                layers.append(Dropout(dropout))
            channels = stage.channels
            height, width = (
                (side + 2 * stage.padding - stage.kernel_size + 1) // stage.pool
                for side in (height, width)
            )
        if height < 1 or width < 1:
            raise ValueError(
                f"the stages leave nothing of an input of {input_shape[1]} x {input_shape[2]}. "
                "Use fewer stages or a smaller pool."
            )
        layers.append(nn.Flatten(2))
        features = channels * height * width
        for size in hidden:
            layers += [Linear(features, size), Neurons(constants)]
            if dropout > 0:
                layers.append(Dropout(dropout))
            features = size
        layers += [Linear(features, classes), Neurons(constants)]
        super().__init__(
            layers, input_shape=input_shape, constants=constants, time_steps=time_steps
        )


class SpikingCNN1(SpikingNetwork):
    """16C5-P2-(32C3 | 8C1)-8C1 and a head: the paper's Spiking-CNN1 for MNIST.

    The two branches see the same currents and are joined along the channels.

    Args:
        head: ``"hidden"`` puts 288 spiking neurons in front of the output (340 112 weights);
            ``"flatten"`` pools once more and reads its 288 features directly (8 336 weights).
            The paper's notation allows both.
        input_shape: Channels, height and width of the input.
        classes: Number of output neurons.
        time_steps: How many steps a still image is shown.
        tau_mem: Time constant of the membranes, in time steps.
        tau_syn: Time constant of the synapses, in time steps.
        v_threshold: Firing threshold.

    Raises:
        ValueError: If ``head`` is neither, or a constant is out of range.

    References:
        Weight-variation-aware training (WVAT), appendix A.2.
    """

    def __init__(
        self,
        *,
        head: Literal["hidden", "flatten"] = "hidden",
        input_shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        time_steps: int = 5,
        tau_mem: float = 5.0,
        tau_syn: float = 3.0,
        v_threshold: float = 1.0,
    ) -> None:
        if head not in ("hidden", "flatten"):
            raise ValueError(f"head must be 'hidden' or 'flatten', got {head!r}.")
        constants = TSSL(tau_mem, tau_syn, v_threshold)
        channels, height, width = input_shape
        height, width = (height - 4) // 2, (width - 4) // 2
        layers: list[nn.Module] = [
            *(Conv2d(channels, 16, 5), Neurons(constants), SumPool2d(2)),
            *(_Branches(Conv2d(16, 32, 3, padding=1), Conv2d(16, 8, 1)), Neurons(constants)),
            *(Conv2d(40, 8, 1), Neurons(constants)),
        ]
        if head == "hidden":
            hidden = Linear(8 * height * width, 288)
            layers += [nn.Flatten(2), hidden, Neurons(constants), Linear(288, classes)]
        else:
            features = 8 * (height // 2) * (width // 2)
            layers += [SumPool2d(2), nn.Flatten(2), Linear(features, classes)]
        super().__init__(
            [*layers, Neurons(constants)],
            input_shape=input_shape,
            constants=constants,
            time_steps=time_steps,
        )


class SpikingCNN2(ConvNet):
    """15C5-P2-40C5-P2-300-10: the MNIST network of TSSL-BP and the paper's Spiking-CNN2.

    Args:
        input_shape: Channels, height and width of the input.
        classes: Number of output neurons.
        time_steps: How many steps a still image is shown.
        tau_mem: Time constant of the membranes, in time steps.
        tau_syn: Time constant of the synapses, in time steps.
        v_threshold: Firing threshold.

    Raises:
        ValueError: If a constant is out of range.

    References:
        Weight-variation-aware training (WVAT), appendix A.2.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (1, 28, 28),
        classes: int = 10,
        time_steps: int = 5,
        tau_mem: float = 5.0,
        tau_syn: float = 3.0,
        v_threshold: float = 1.0,
    ) -> None:
        super().__init__(
            input_shape=input_shape,
            stages=(Stage(15, 5, pool=2), Stage(40, 5, pool=2)),
            hidden=(300,),
            classes=classes,
            time_steps=time_steps,
            constants=TSSL(tau_mem, tau_syn, v_threshold),
        )


class NMNISTCNN(ConvNet):
    """12C5-P2-64C5-P2-10: the N-MNIST network of TSSL-BP, for 30 steps of 3 ms.

    Args:
        input_shape: Channels, height and width of the input.
        classes: Number of output neurons.
        tau_mem: Time constant of the membranes, in time steps.
        tau_syn: Time constant of the synapses, in time steps.
        v_threshold: Firing threshold.

    Raises:
        ValueError: If a constant is out of range.

    References:
        TSSL-BP (Zhang & Li, 2020), official code.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (2, 34, 34),
        classes: int = 10,
        tau_mem: float = 8.0,
        tau_syn: float = 4.0,
        v_threshold: float = 1.0,
    ) -> None:
        super().__init__(
            input_shape=input_shape,
            stages=(Stage(12, 5, padding=1, pool=2), Stage(64, 5, pool=2)),
            classes=classes,
            constants=TSSL(tau_mem, tau_syn, v_threshold),
        )


class _Branches(nn.Module):
    """Synapses of several layers on the same input, their currents joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, psc: Tensor) -> Tensor:
        return torch.cat([branch(psc) for branch in self.branches], 2)
