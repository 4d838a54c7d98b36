"""The landscape of the loss around the weights of a network."""

from __future__ import annotations

from spikewvat.devices import DeviceModel
from spikewvat.robustness.chips import Progress
from spikewvat.robustness.landscape.lines import LossLines, lines_to_chips
from spikewvat.robustness.landscape.sharpness import Sharpness, rise_of_loss
from spikewvat.robustness.landscape.surface import LossSurface, plane_of_filters
from spikewvat.robustness.stacked import Stacking
from spikewvat.robustness.subject import Subject
from spikewvat.robustness.testset import ChipLoss


class Landscape:
    """The loss around the weights of a network: ``Evaluator(...).landscape``.

    Args:
        subject: The network and its images.
        loss: Mean loss of a batch from output and labels.
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
        r"""Evaluate the network along lines through its weights, each of which leads to a chip.

        .. math:: L(w + t\,(\mathrm{program}(w) - w)), \qquad t \in [-1, 1]

        For Gaussian variation that is :math:`L(w + \gamma R \sigma_v \xi)` with one :math:`\xi` a
        line and :math:`\gamma \sigma_v` from minus sigma to sigma. With an equal seed line i leads
        to chip i of :meth:`~spikewvat.Evaluator.chips`, and networks are compared along the same
        lines. A device whose chips are no straight continuation of smaller variations
        (quantisation, stuck cells) is met at t = 1 only.

        Args:
            device: What a chip does to weights, as large as the ends of the lines shall be.
            lines: How many, at least 1.
            points: Places on each line, at least 2; an odd number has the weights themselves
                among them.
            seed: The seeds of the chips are drawn with it.
            progress: Called after each place.

        Returns:
            Losses and accuracies of all places.

        Raises:
            ValueError: If a number is out of its range.

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
            points: Places along either perturbation, at least 2; the square of it is evaluated.
            reach: How far to go, in filter norms, above 0.
            seed: The seeds of the two perturbations are drawn with it.
            progress: Called after each place.

        Returns:
            Losses and accuracies of all places.

        Raises:
            ValueError: If a number is out of its range.

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
        r"""Measure how far the loss rises where a device takes the weights.

        .. math:: \mathbb E\, L(\mathrm{program}(w)) - L(w), \qquad
            \max_{\text{chips}} L(\mathrm{program}(w)) - L(w), \qquad
            \max_{0 < t \le 1} L(w + t v) - L(w)

        v is gradient-ascent variation with :math:`\alpha = 1`: in each tensor along the gradient
        of the loss over all images, and as long as what the device does to it. One gradient is no
        search for the worst perturbation; it is taken in evaluation mode through the network's
        surrogates.

        Args:
            device: What a chip does to weights.
            chips: How many chips, at least 1.
            ascent_points: Places on the ascent; 0 takes no gradient.
            seed: The seeds of the chips are drawn with it.
            progress: Called after each chip.

        Returns:
            Losses of chips and ascent.

        Raises:
            ValueError: If a number is out of its range, the loss has no gradient or weights are
                frozen.
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
