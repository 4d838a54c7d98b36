"""The loss landscape around the weights of a network."""

from __future__ import annotations

from spikewvat.devices import DeviceModel
from spikewvat.robustness.landscape.lines import LossLines, lines_to_chips
from spikewvat.robustness.landscape.sharpness import Sharpness, rise_of_loss
from spikewvat.robustness.landscape.surface import LossSurface, plane_of_filters
from spikewvat.robustness.plan import Progress
from spikewvat.robustness.stacked import Stacking
from spikewvat.robustness.subject import Subject
from spikewvat.robustness.testset import ChipLoss


class Landscape:
    """The loss around the weights of a network: ``Evaluator(...).landscape``.

    Args:
        subject: The network and its images.
        loss: Function from output and labels to the mean loss of a batch.
        stack: Whether several chips share a forward pass.
    """

    def __init__(self, subject: Subject, loss: ChipLoss, stack: Stacking) -> None:
        self._subject, self._loss, self._stack = subject, loss, stack

    def lines(
        self,
        device: DeviceModel,
        *,
        lines: int = 10,
        points: int = 13,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LossLines:
        r"""Evaluate the network along lines through its weights, each leading to one chip.

        .. math:: L(w + t\,(\mathrm{program}(w) - w)), \qquad t \in [-1, 1]

        For Gaussian variation this is :math:`L(w + \gamma R \sigma_v \xi)` with one :math:`\xi` per
        line and :math:`\gamma \sigma_v` from minus sigma to sigma. With the same seed, line i leads
        to chip i of :meth:`~spikewvat.Evaluator.chips`, so networks are compared along the same
        lines. If variation does not scale linearly (quantisation, stuck cells), only t = 1 is an
        actual chip.

        Args:
            device: Device model, with the size of variation at the ends of the lines.
            lines: Number of lines, at least 1.
            points: Positions on each line, at least 2; an odd number includes the weights
                themselves.
            seed: Seed from which the seeds of the chips are drawn.
            progress: Called after each position.

        Returns:
            Losses and accuracies at all positions.

        Raises:
            ValueError: If a number is out of range.

        References:
            Weight-variation-aware training (WVAT), Figure 7.
        """
        with self._subject.running(self._loss) as run:
            return lines_to_chips(
                run, device, lines=lines, points=points, seed=seed, progress=progress
            )

    def surface(
        self,
        *,
        points: int = 21,
        reach: float = 1.0,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> LossSurface:
        """Evaluate the network over a plane of two filter-normalised random perturbations.

        Args:
            points: Positions along each perturbation, at least 2; points squared are evaluated.
            reach: Largest distance, in filter norms, above 0.
            seed: Seed from which the seeds of the two perturbations are drawn.
            progress: Called after each position.

        Returns:
            Losses and accuracies at all positions.

        Raises:
            ValueError: If a number is out of range.

        References:
            See :func:`~spikewvat.robustness.landscape.filter_normalised`.
        """
        with self._subject.running(self._loss) as run:
            return plane_of_filters(run, points=points, reach=reach, seed=seed, progress=progress)

    def sharpness(
        self,
        device: DeviceModel,
        *,
        chips: int = 25,
        ascent_points: int = 5,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Sharpness:
        r"""Measure how far the loss rises under the variation of a device.

        .. math:: \mathbb E\, L(\mathrm{program}(w)) - L(w), \qquad
            \max_{\text{chips}} L(\mathrm{program}(w)) - L(w), \qquad
            \max_{0 < t \le 1} L(w + t v) - L(w)

        v is gradient-ascent variation with :math:`\alpha = 1`: in each tensor it follows the
        gradient of the loss over all images, with the norm of the device's variation. The gradient
        is computed once, in evaluation mode through the network's surrogates, so this is not a
        search for the worst perturbation.

        Args:
            device: The device model.
            chips: Number of chips, at least 1.
            ascent_points: Positions on the ascent; 0 computes no gradient.
            seed: Seed from which the seeds of the chips are drawn.
            progress: Called after each chip.

        Returns:
            Losses on the chips and along the ascent.

        Raises:
            ValueError: If a number is out of range, the loss has no gradient or weights are frozen.
        """
        with self._subject.running(self._loss) as run:
            return rise_of_loss(
                run,
                device,
                chips=chips,
                ascent_points=ascent_points,
                seed=seed,
                stack=self._stack,
                progress=progress,
            )
