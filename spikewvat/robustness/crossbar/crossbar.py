"""The crossbar around the devices: tiles, converters, wires and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, adapter_for, check_model
from spikewvat.adapters.modes import evaluating
from spikewvat.devices.base import check_at_least_zero
from spikewvat.robustness.crossbar.array import Array, Tile
from spikewvat.robustness.crossbar.tiles import (
    Product,
    Slice,
    converted,
    dropped,
    in_groups,
    sliced,
    spread_inputs,
)
from spikewvat.weights import Weights

_BITS = 16
_SAMPLES = 20_000  # sums of one call that a range is calibrated on
_Convert: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Crossbar:
    r"""What stands around the devices of a chip: tiles with wires, noise and converters.

    A matrix of weights is cut into tiles. In each, the currents of a column add up, and a
    converter (ADC) turns the sum into a number; the numbers of all tiles are added digitally, and a
    bias too. The inputs of convolutions are the patches under the kernel. All sums are in units of
    a spike through the largest cell:

    .. math::
        y = s h \sum_{tiles} \mathrm{ADC}\left(\sum_{j} c_j (x_j + \sigma_{in} \epsilon_j)
            - \Delta v + \sigma_{out} \epsilon\right), \qquad w = s c

    s is the largest weight of a layer, h the largest input of a vector (of an image in
    convolutions): 1 for spikes of height 1, so that any height will do. Spikes are on or off, and
    their rows need no converter (DAC); other inputs do.

    Gradients are those of the product without crossbar (straight-through). Noise is drawn in every
    pass, for each input vector anew.

    Args:
        rows: Rows of a tile.
        columns: Columns of a tile. A weight takes ``slices`` columns, twice as many without
            ``offset``.
        adc_bits: Bits of the converters; None for analog neurons, which take sums as they are.
        adc_range: Where converters clip, in units of a spike through the largest cell (``12`` as
            in aihwkit); by weight in a mapping, see :meth:`calibrated`.
        ir_drop: Resistance of a column's wire from a cell to the next, times the largest
            conductance of a cell, as 0.35 ohm x 5 µS = 1.75e-6.
        input_noise: Standard deviation of the voltage on a row, in units of a spike.
        output_noise: Standard deviation of a sum, in units of a spike through the largest cell.
        dac_bits: Bits of the converters of inputs that are no spikes, sign included; None does not
            round them.
        offset: Cells hold weights plus half of the range, and a column of each tile is subtracted;
            otherwise two cells hold a weight as their difference, which one converter sees.
        slices: Cells that hold the digits of a weight, each with a sum and a conversion of its own.
        cell_bits: Bits of a cell; None for cells that hold any value.

    Raises:
        ValueError: If a number is out of range, or a weight does not fit into a tile.

    References:
        aihwkit's ``IOParameters`` (``out_bound``, ``out_res``, ``out_noise``, ``inp_noise``,
        ``inp_res``, ``ir_drop``) with ``noise_management`` by the largest input; ISAAC (Shafiee
        et al., 2016) for slices and offsets.

    Example:
        >>> net = nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.ones_(net.weight)
        >>> with torch.no_grad(), Crossbar(adc_bits=3, adc_range=1.5).around(net):
        ...     net(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).tolist()
        [[1.0], [1.5]]
    """

    rows: int = 256
    columns: int = 256
    adc_bits: int | None = 8
    adc_range: float | Mapping[str, float] = 12.0
    ir_drop: float = 0.0
    input_noise: float = 0.0
    output_noise: float = 0.0
    dac_bits: int | None = None
    offset: bool = False
    slices: int = 1
    cell_bits: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("columns", 1), ("slices", 1)):
            _check_whole(name, getattr(self, name), least, None)
        for name in ("adc_bits", "dac_bits"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 2, _BITS)
        for name in ("ir_drop", "input_noise", "output_noise"):
            check_at_least_zero(name, getattr(self, name))
        ranges = self.adc_range if isinstance(self.adc_range, Mapping) else {"": self.adc_range}
        for bound in ranges.values():
            if not bound > 0 or (self.adc_bits is not None and math.isinf(bound)):
                raise ValueError(
                    f"adc_range must be above 0, and finite with adc_bits, got {bound!r}. It is in "
                    "units of a spike through the largest cell: 12, for example."
                )
        if self.cell_bits is not None:
            _check_whole("cell_bits", self.cell_bits, 1, _BITS)
            _check_whole("slices x cell_bits", self.slices * self.cell_bits, 2, _BITS)
        elif self.slices > 1:
            raise ValueError(
                f"slices is {self.slices}, so that a weight is cut into digits, and cell_bits is "
                "None. Pass cell_bits=2, for example."
            )
        if self.weights_per_tile < 1:
            raise ValueError(
                f"columns is {self.columns}, too few for one weight of {self.slices} slices"
                f"{' and its offset' if self.offset else ' in pairs'}. Use more columns."
            )

    @property
    def weights_per_tile(self) -> int:
        """Number of outputs whose weights fit into a tile side by side."""
        taken = self.slices if self.offset else 0
        return (self.columns - taken) // (self.slices * (1 if self.offset else 2))

    @property
    def draws(self) -> bool:
        """Whether there is noise."""
        return self.input_noise > 0 or self.output_noise > 0

    def exact_bits(self, input_bits: int = 1) -> int | None:
        """Return the bits at which converters lose nothing; None for cells that hold any value.

        Args:
            input_bits: Bits of an input that is applied at once; 1 for spikes.

        References:
            ISAAC, equation 1, there for cells of one sign.

        Example:
            >>> found = Crossbar(rows=128, offset=True, slices=8, cell_bits=2)
            >>> found.exact_bits(), found.exact_bits(input_bits=8)
            (9, 17)
        """
        if self.cell_bits is None:
            return None
        largest = self.rows * (2**input_bits - 1) * (2**self.cell_bits - 1)
        return math.ceil(math.log2(largest + 1 if self.offset else 2 * largest + 2))

    @contextmanager
    def around(
        self,
        model: nn.Module,
        *,
        generator: Generator | None = None,
        weights: Weights | None = None,
        adapter: Adapter | None = None,
        largest: Mapping[str, float] | None = None,
    ) -> Iterator[Array]:
        """Put the crossbar around the synapses of a network within a block.

        The block may train the network or evaluate it, with whatever weights it holds meanwhile
        (:func:`~spikewvat.weights.perturbed`, a training method's). Weights are never written.

        Args:
            model: The network.
            generator: Source of the noise; by default torch's global one, as for dropout. Training
                methods and evaluators seed that one and compare passes by it.
            weights: Live weights that are on the crossbar; by default those that the adapter finds.
            adapter: Defaults to the adapter for the model's framework.
            largest: The largest weight of each layer, by the name of its weight; by default that
                which it holds in each pass. On a chip it is that of the weights that were aimed at.

        Yields:
            The account of what goes through the crossbar: print it.

        Raises:
            UnsupportedModelError: From a pass, if a weight is used otherwise than in linear and
                convolutional products; it names the weight.
            ValueError: If the network is inside of a crossbar already; from a pass, if a weight has
                no range.

        Example:
            >>> net = nn.Sequential(nn.Linear(300, 4))
            >>> with Crossbar().around(net) as array:
            ...     _ = net(torch.ones(1, 300))
            >>> print(array)
            1 weight on 2 tiles of 256 x 256
              0.weight  300 x 4  2 tiles  spikes
        """
        with self._around(model, generator, weights, adapter, largest, None) as array:
            yield array

    def calibrated(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        *,
        weights: Weights | None = None,
        adapter: Adapter | None = None,
    ) -> Crossbar:
        """Return the crossbar with the range of each layer's converters chosen from samples.

        A wide range has coarse steps and a narrow one clips. For each layer, the range is the one
        of the largest sum times 1, 0.84, 0.71 ... (fourth roots of 2) at which the sums of the
        samples lose least, in mean square.

        Args:
            model: The network, which runs in evaluation mode.
            batches: Inputs, or tuples with inputs first; not those of the test.
            weights: As for :meth:`around`. Where a module around the network runs it over time,
                pass that module and the network's weights.
            adapter: As for :meth:`around`.

        Raises:
            ValueError: If there are no converters, or no batches.

        References:
            CrossSim chooses percentiles of profiled sums, too, by the error of quantisation.
        """
        if self.adc_bits is None:
            raise ValueError("adc_bits is None: there is no converter whose range could be chosen.")
        adapter = adapter or adapter_for(model)
        sums: dict[str, list[Tensor]] = {}

        source = Generator().manual_seed(0)

        def note(name: str, found: Tensor) -> Tensor:
            flat = found.detach().flatten()
            if len(flat) > _SAMPLES:  # at random: regular places would be the same in every image
                chosen = torch.randint(len(flat), (_SAMPLES,), generator=source)
                flat = flat[chosen.to(flat.device)]
            sums.setdefault(name, []).append(flat.cpu())
            return found

        unbounded = replace(self, adc_bits=None, adc_range=math.inf)
        with (
            evaluating(model),
            torch.no_grad(),
            unbounded._around(model, source, weights, adapter, None, note),
        ):
            try:
                for batch in batches:
                    adapter.reset_state(model)
                    model(batch[0] if isinstance(batch, tuple | list) else batch)
            finally:
                adapter.reset_state(model)
        if not sums:
            raise ValueError("batches has none, expected inputs to calibrate on.")
        return replace(self, adc_range={name: self._range(found) for name, found in sums.items()})

    def _range(self, found: list[Tensor]) -> float:
        """Return the range at which sums lose least."""
        sums = torch.cat(found)
        largest = float(sums.abs().max()) or 1.0
        bounds = [float(f"{largest * 2 ** (-k / 4):.3g}") for k in range(25)]

        def loss(bound: float) -> float:
            levels = converted(sums, self.adc_bits, bound, unipolar=self.offset)
            return float((levels - sums).square().mean())

        return min(bounds, key=loss)

    @contextmanager
    def _around(
        self,
        model: nn.Module,
        generator: Generator | None,
        weights: Weights | None,
        adapter: Adapter | None,
        largest: Mapping[str, float] | None,
        note: Callable[[str, Tensor], Tensor] | None,
    ) -> Iterator[Array]:
        check_model(model, type(self).__name__)
        adapter = adapter or adapter_for(model)
        live = adapter.synaptic_weights(model) if weights is None else weights

        def through(name: str, product: Product, x: Tensor, weight: Tensor) -> Tensor:
            unit = float(weight.abs().max()) if largest is None else largest[name]
            return self.multiply(
                product,
                x,
                weight,
                unit=unit or 1.0,
                bound=self._bound(name),
                generator=generator,
                note=None if note is None else lambda sums: note(name, sums),
            )

        tile = Tile(self.rows, self.columns, self.weights_per_tile)
        array = Array(model, live, through, tile)
        with array.placed():
            yield array

    def _bound(self, name: str) -> float:
        if not isinstance(self.adc_range, Mapping):
            return float(self.adc_range)
        if name not in self.adc_range:
            raise ValueError(
                f"adc_range has no entry for weight {name!r} (has: "
                f"{', '.join(map(repr, self.adc_range))}). Calibrate it on this network."
            )
        return self.adc_range[name]

    def multiply(
        self,
        product: Product,
        x: Tensor,
        weight: Tensor,
        *,
        unit: float,
        bound: float,
        generator: Generator | None = None,
        note: _Convert | None = None,
    ) -> Tensor:
        """Return a product as the crossbar computes it, without gradients.

        Args:
            product: How inputs meet weights.
            x: Inputs ``[..., in, *sides]``.
            weight: Weights ``[out, in / groups, *kernel]``.
            unit: The weight of a full cell.
            bound: Where converters clip.
            generator: Source of the noise.
            note: Takes the place of the converters.

        Raises:
            ValueError: If an input is negative and cells hold an offset.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        x, weight = x.detach().to(dtype), weight.detach().to(dtype)
        heights = product.heights(x)
        if not bool((heights == 1).all()):
            x = x / heights
        if self.dac_bits is not None:
            x = converted(x, self.dac_bits, 1.0)
        if self.offset and bool((x < 0).any()):
            raise ValueError(
                "an input is negative, and with offset=True a converter knows no sums below 0. "
                "Use offset=False, or inputs of one sign."
            )
        if note is None:
            note = lambda sums: converted(sums, self.adc_bits, bound, unipolar=self.offset)  # noqa: E731
        total: Tensor | None = None
        for part in sliced(weight / unit, self.slices, self.cell_bits, offset=self.offset):
            cells = self._beside_references(product, part) if self.offset else part.cells
            for first in range(0, weight[0].numel(), self.rows):
                last = min(first + self.rows, weight[0].numel())
                sums = note(self._sums(product, x, cells, first, last, generator))
                if self.offset:
                    sums = self._without_references(product, sums, len(weight))
                total = sums * part.worth if total is None else total.add_(sums, alpha=part.worth)
        assert total is not None  # a weight without inputs is none
        return total * (unit * heights)

    def _sums(
        self,
        product: Product,
        x: Tensor,
        cells: Tensor,
        first: int,
        last: int,
        generator: Generator | None,
    ) -> Tensor:
        """Return the currents of the columns of some rows."""

        def normal(*shape: int) -> Tensor:
            place = x.device if generator is None else generator.device
            drawn = torch.randn(shape, generator=generator, device=place, dtype=x.dtype)
            return drawn.to(x.device)

        sums = product.apply(*product.rows(x, cells, first, last))
        if self.ir_drop:
            sums = sums - dropped(product, x, cells, first, last, self.ir_drop)
        if self.input_noise:
            places = sums.movedim(product.axis, -1).shape[:-1]
            noise = self.input_noise * normal(*places, product.groups, last - first)
            sums = sums + spread_inputs(product, noise, cells, first, last)
        if self.output_noise:
            sums = sums + self.output_noise * normal(*sums.shape)
        return sums

    def _beside_references(self, product: Product, part: Slice) -> Tensor:
        """Return the cells of all columns, references behind those of each group."""
        cells = in_groups(part.cells, 0, product.groups)
        blocks = -(-cells.shape[1] // self.weights_per_tile)
        references = cells.new_full((product.groups, blocks, *cells.shape[2:]), part.reference)
        return torch.cat([cells, references], 1).flatten(0, 1)

    def _without_references(self, product: Product, sums: Tensor, outputs: int) -> Tensor:
        """Return the numbers of all columns less that of the reference of their tile."""
        each, axis = outputs // product.groups, product.axis
        own, references = in_groups(sums, axis, product.groups).tensor_split([each], axis)
        subtracted = references.repeat_interleave(self.weights_per_tile, axis).narrow(axis, 0, each)
        return (own - subtracted).flatten(axis - 1, axis)


def _check_whole(name: str, value: object, least: int, most: int | None) -> None:
    if type(value) is not int or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {span}, got {value!r}.")
