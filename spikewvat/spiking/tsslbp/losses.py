"""Losses of TSSL-BP, on the output layer's post-synaptic currents ``[T, B, classes]``.

Both are sums over the batch, as published: the recipes clip the gradient's norm to 1 in every
step. The softmax loss of the official code, cross-entropy of the summed currents, is
:func:`spikewvat.spiking.losses.rate_cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from spikewvat.spiking.losses import Output, class_scores
from spikewvat.spiking.tsslbp.dynamics import TSSL, psp


def kernel_loss(
    output: Output,
    labels: Tensor,
    *,
    tau_syn: float = TSSL.tau_syn,
    double_filter: bool = False,
    desired: Sequence[int] | None = None,
) -> Tensor:
    r"""Squared distance between the output currents and those of a desired spike train.

    .. math:: L = \frac12 \sum_{b,i,t} (a_{b,i,t} - [i = y_b]\, \hat a_t)^2, \qquad
        \hat a = \mathrm{psp}(\hat s)

    Args:
        output: Post-synaptic currents ``[T, B, classes]``, or a tuple with them first.
        labels: Class indices ``[B]``, int64.
        tau_syn: Time constant of the output layer's synapse, in time steps, above 1.
        double_filter: Filter the desired train twice, as the released code does since October
            2020 (the paper: once); asks for about half the activity.
        desired: Desired spikes of the labelled class, T zeros and ones; by default 0 1 1 1 1 for
            T = 5, and 0 1 0 1 ... for multiples of 10.

    Returns:
        The sum over batch, classes and time, a 0-dim tensor.

    Raises:
        ValueError: If there is no desired train for T, or the output has no time axis.

    References:
        TSSL-BP (Zhang & Li, 2020); trains of the official code.

    Example:
        >>> round(kernel_loss(torch.zeros(5, 1, 2), torch.tensor([0])).item(), 6)
        0.779454
    """
    psc = _currents(output)
    train = desired_psc(len(psc), tau_syn, double_filter=double_filter, desired=desired).to(psc)
    target = functional.one_hot(labels, psc.shape[2]) * train[:, None, None]
    return (psc - target).square().sum() / 2


def desired_psc(
    time_steps: int,
    tau_syn: float = TSSL.tau_syn,
    *,
    double_filter: bool = False,
    desired: Sequence[int] | None = None,
) -> Tensor:
    """Return the post-synaptic currents of a desired train, float64 [T].

    Args:
        time_steps: Number of steps T.
        tau_syn: Time constant of the synapse, in time steps, above 1.
        double_filter: Filter twice (see :func:`kernel_loss`).
        desired: T zeros and ones; by default a train of the official code.

    Raises:
        ValueError: If there is no such train for T, or ``desired`` is none of length T.

    Example:
        >>> [round(a, 4) for a in desired_psc(5).tolist()]
        [0.0, 0.3333, 0.5556, 0.7037, 0.8025]
    """
    if desired is None:
        if time_steps == 5:
            desired = (0, 1, 1, 1, 1)
        elif time_steps % 10 == 0 and time_steps > 0:
            desired = (0, 1) * (time_steps // 2)
        else:
            raise ValueError(
                f"there is no desired train of {time_steps} time steps: the official ones are "
                "0 1 1 1 1 for T = 5 and 0 1 0 1 ... for multiples of 10. Use such a T, or pass "
                "desired=[...], T zeros and ones."
            )
    if len(desired) != time_steps or not set(desired) <= {0, 1}:
        raise ValueError(
            f"desired must be {time_steps} zeros and ones, one for each time step, "
            f"got {list(desired)}."
        )
    target = psp(torch.tensor(desired, dtype=torch.float64), tau_syn)
    return psp(target, tau_syn) if double_filter else target


def count_loss(
    output: Output, labels: Tensor, *, correct: float = 15.0, incorrect: float = 3.0
) -> Tensor:
    r"""Squared distance of summed output currents from targets that may be over- or undershot.

    .. math:: L = \frac12 \sum_{b,i} T \delta_{b,i}^2, \qquad
        \delta_{b,i} = \begin{cases}
            \min(n_{b,i} - c_+, 0)/T & i = y_b \\ \max(n_{b,i} - c_-, 0)/T & \text{else}
        \end{cases}, \qquad n_{b,i} = \sum_t a_{b,i,t}

    Args:
        output: Post-synaptic currents ``[T, B, classes]``, or a tuple with them first.
        labels: Class indices ``[B]``, int64.
        correct: Sum that the labelled class should reach, above ``incorrect`` and below T: a
            neuron that fires in every step stays below T.
        incorrect: Sum that the others should not exceed, at least 0.

    Returns:
        The sum over batch and classes, a 0-dim tensor.

    Raises:
        ValueError: If the targets are out of order or out of reach in T steps, or the output has
            no time axis.

    References:
        TSSL-BP (Zhang & Li, 2020), official code (N-MNIST).

    Example:
        >>> round(count_loss(torch.full((30, 1, 2), 0.5), torch.tensor([0])).item(), 4)
        2.4
    """
    psc = _currents(output)
    time_steps = len(psc)
    if not 0 <= incorrect < correct:
        raise ValueError(
            f"count_loss needs 0 <= incorrect < correct, got correct={correct!r}, "
            f"incorrect={incorrect!r}."
        )
    if not correct < time_steps:
        raise ValueError(
            f"correct={correct!r} is out of reach: summed over {time_steps} time steps a current "
            f"stays below {time_steps}. Lower the target, or take more time steps."
        )
    counts = class_scores(psc)
    labelled = functional.one_hot(labels, counts.shape[1]).bool()
    delta = torch.where(
        labelled, (counts - correct).clamp(max=0), (counts - incorrect).clamp(min=0)
    )
    return delta.square().sum() / (2 * time_steps)


def _currents(output: Output) -> Tensor:
    """Return the output currents, at least in float32."""
    psc = output if isinstance(output, Tensor) else output[0]
    if psc.dim() != 3:
        raise ValueError(
            f"network output has shape {tuple(psc.shape)}, expected [T, B, classes], time first."
        )
    return psc.to(torch.promote_types(psc.dtype, torch.float32))
