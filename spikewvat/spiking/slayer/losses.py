"""SLAYER's losses on output spikes [T, B, classes]."""

from __future__ import annotations

import torch
from torch import Tensor

from spikewvat.spiking.layers import state_dtype
from spikewvat.spiking.losses import Output
from spikewvat.spiking.slayer.kernels import SRM, check_not_empty, psp


def count_loss(
    output: Output,
    labels: Tensor,
    *,
    true_count: float = 60.0,
    false_count: float = 10.0,
    start: float = 0.0,
    stop: float | None = None,
    constants: SRM = SRM(),  # noqa: B008 -- frozen
) -> Tensor:
    r"""Distance of spike counts from targets within a window of time ("NumSpikes").

    .. math::
        e_i[n] &= \frac{dt \sum_{n \in W} s_i[n] - c_i}{|W|}\,[n \in W]
            + dt \sum_k \varepsilon[k]\, \big(s_i\,[\cdot \notin W]\big)[n-k] \\
        E &= \frac{dt}{2} \sum_{b, i, n} e_i[n]^2, \qquad
        \frac{\partial E}{\partial s_i[m]} = dt^2 \sum_k \varepsilon[k]\, e_i[m+k]

    Spikes outside the window W are not wanted at all. The count is a constant for the gradient,
    which is defined, not derived: the error goes back through the response kernel everywhere,
    inside the window too.

    Args:
        output: Output spikes ``[T, B, classes]`` of height 1/dt, or a tuple with them first.
        labels: Class indices ``[B]``, int64.
        true_count: Spikes wanted of the labelled class within the window.
        false_count: Spikes wanted of all others, at least 0 and below ``true_count``.
        start: Begin of the window, ms.
        stop: End of the window, ms, not included; ``None`` is the end of the recording.
        constants: For the response kernel and the time step.

    Returns:
        The sum over the batch (not the mean), a 0-dim tensor.

    Raises:
        ValueError: If the window does not fit the recording, no neuron can fire as often as the
            targets say within it, or the output is empty, not binary or not time first.

    References:
        SLAYER (Shrestha & Orchard, 2018), section 3.4 and official code.

    Example:
        >>> spikes = torch.zeros(40, 1, 2)
        >>> spikes[::4, 0, 0] = 1
        >>> labels = torch.tensor([0])
        >>> count_loss(spikes, labels, true_count=10, false_count=0).item()
        0.0
    """
    spikes = _checked(output, constants)
    steps, batch = spikes.shape[:2]
    if labels.shape != (batch,):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, expected ({batch},), one for each sample "
            f"of the output {tuple(spikes.shape)}. Output is [T, B, classes], time first."
        )
    window = _window(steps, start, stop, constants.dt)
    width = window.stop - window.start
    # A spike makes the next one harder but never impossible, so one a step is the bound.
    if not 0 <= false_count < true_count <= width:
        raise ValueError(
            f"count_loss needs 0 <= false_count < true_count <= {width}, the steps of the window, "
            f"got true_count={true_count!r}, false_count={false_count!r}. "
            "Lower the counts or widen the window."
        )
    inside = spikes.detach().clone()
    inside[: window.start] = 0
    inside[window.stop :] = 0
    target = torch.full_like(spikes[0], false_count).scatter_(1, labels[:, None], true_count)
    error = psp(spikes - inside, constants)  # zero inside, but not its gradient
    in_window = torch.zeros_like(spikes[:, :1, :1])
    in_window[window] = 1
    error = error + in_window * (constants.dt * inside.sum(0) - target) / width
    return _energy(error, constants)


def spike_time_loss(
    output: Output,
    desired: Tensor,
    *,
    constants: SRM = SRM(),  # noqa: B008 -- frozen
) -> Tensor:
    r"""Distance of filtered spike trains from desired ones ("SpikeTime", of van Rossum's kind).

    .. math:: E = \frac{dt}{2} \sum_{b, i, n}
        \Big(dt \sum_k \varepsilon[k]\, (s_i - \hat s_i)[n-k]\Big)^2

    Args:
        output: Output spikes ``[T, B, N]`` of height 1/dt, or a tuple with them first.
        desired: Wanted spikes, same shape and height.
        constants: For the response kernel and the time step.

    Returns:
        The sum over the batch, a 0-dim tensor.

    Raises:
        ValueError: If the shapes differ, or spikes are empty or not binary.

    References:
        SLAYER (Shrestha & Orchard, 2018), Eq. (5) and official code.

    Example:
        >>> spikes = torch.eye(4)[:, None]
        >>> spike_time_loss(spikes, spikes).item()
        0.0
    """
    spikes = _checked(output, constants)
    if desired.shape != spikes.shape:
        raise ValueError(
            f"desired spikes have shape {tuple(desired.shape)}, "
            f"expected that of the output, {tuple(spikes.shape)}, time first."
        )
    error = psp(spikes - _checked(desired, constants, "desired spikes"), constants)
    return _energy(error, constants)


def _checked(output: Output, constants: SRM, what: str = "network output") -> Tensor:
    """Return spikes in float32 at least; raise a ValueError if they are none."""
    spikes = output if isinstance(output, Tensor) else output[0]
    if spikes.dim() != 3:
        raise ValueError(
            f"{what} has shape {tuple(spikes.shape)}, expected [T, B, classes]. "
            "Flatten the last layer's output, time first."
        )
    check_not_empty(spikes)
    height = torch.tensor(1 / constants.dt, dtype=spikes.dtype).item()
    values = spikes.detach()
    other = values[(values != 0) & (values != height)]
    if other.numel():
        raise ValueError(
            f"{what} holds the value {other[0].item():.6g}, expected spikes: 0 or {height:.6g}. "
            "Hand over spikes, not potentials or rates."
        )
    return spikes.to(state_dtype(spikes))


def _energy(error: Tensor, constants: SRM) -> Tensor:
    """Return half the integral over time of the squared error, summed over neurons and batch."""
    energy: Tensor = error.square().sum() * (0.5 * constants.dt)
    return energy


def _window(steps: int, start: float, stop: float | None, dt: float) -> slice:
    """Return the steps of a window in ms."""
    last = steps if stop is None else round(stop / dt)
    first = round(start / dt)
    if not 0 <= first < last <= steps:
        raise ValueError(
            f"the window start={start!r}, stop={stop!r} ms is steps {first} to {last}, but the "
            f"recording has {steps}. Choose 0 <= start < stop <= {steps * dt:g} or record longer."
        )
    return slice(first, last)
