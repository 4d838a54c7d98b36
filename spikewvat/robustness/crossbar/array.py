"""The products of a network that go through a crossbar: found, taken over, accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikewvat.adapters.neurons import exchanged_entries, overridden
from spikewvat.adapters.products import ELEMENTWISE, LOOKUPS, OPERATIONS
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.crossbar.tiles import Product
from spikewvat.spiking.pooled import PooledConv2d
from spikewvat.weights import EffectiveWeight, Weights

Through: TypeAlias = Callable[[str, Product, Tensor, Tensor], Tensor]
"""Returns the product of inputs and a weight of that name, without gradients."""

_SIDES = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}
_WATCHED = OPERATIONS | LOOKUPS | ELEMENTWISE
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_inside: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Tile:
    """The size of a tile.

    Args:
        rows: Its rows.
        columns: Its columns.
        outputs: Outputs whose weights fit into it side by side.
    """

    rows: int
    columns: int
    outputs: int


@dataclass
class _Line:
    """The line of a weight in the account."""

    shape: tuple[int, ...]
    groups: int = 1
    met: bool = False
    analog: bool = False


class Array:
    """The account of a network's products that go through a crossbar. Print it.

    Args:
        model: The network.
        live: The weights on the crossbar.
        through: Computes a product.
        tile: The size of a tile.
    """

    def __init__(self, model: nn.Module, live: Weights, through: Through, tile: Tile) -> None:
        self._model, self._through, self._tile = model, through, tile
        self._live = {name: weight for name, weight in live.items() if weight.numel()}
        self._lines = {name: _Line(tuple(w.shape)) for name, w in self._live.items()}
        self._places: dict[int, str] = {}
        self._running: list[tuple[str, ...]] = []  # weights of the layers that run now
        self._called: set[str] = set()
        self._open = False

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Take the products over within a block.

        Raises:
            ValueError: If the network is inside of a crossbar already.
        """
        if self._model in _inside:
            raise ValueError(
                "the network is inside of a crossbar already, and a product goes through one only. "
                "End that block first."
            )
        with ExitStack() as stack:
            _inside.add(self._model)
            stack.callback(_inside.discard, self._model)
            for module in self._model.modules():
                names = tuple(self._names_in(module))
                if isinstance(module, PooledConv2d):
                    stack.enter_context(exchanged_entries((vars(module), "apart", True)))
                if names or module is self._model:
                    stack.enter_context(overridden(module, "forward", self._calling(names)))
            if hasattr(torch.compiler, "set_stance"):  # a compiler would leave the crossbar out
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield

    def _names_in(self, module: nn.Module) -> Iterator[str]:
        """Yield the names of the weights that a module holds or computes itself."""
        own = {id(parameter) for parameter in module._parameters.values()}
        for name, weight in self._live.items():
            if isinstance(weight, EffectiveWeight):
                if weight.layer is module:
                    yield name
            elif id(weight) in own:
                yield name

    def _calling(self, names: tuple[str, ...]) -> Callable[..., Any]:
        """Return what stands in front of a layer's forward pass."""

        def call(inner: Callable[..., Any], *args: Any, **kw: Any) -> Any:
            if names and args and isinstance(args[0], Tensor) and args[0].is_sparse:
                args = (args[0].to_dense(), *args[1:])
            with self._pass():
                self._called.update(names)
                self._running.append(names)
                try:
                    return inner(*args, **kw)
                finally:
                    self._running.pop()

        return call

    @contextmanager
    def _pass(self) -> Iterator[None]:
        """See the products of the outermost call within a block."""
        if self._open:
            yield
            return
        self._places = {
            weight.data_ptr(): name
            for name, weight in self._live.items()
            if not isinstance(weight, EffectiveWeight)
        }
        self._called.clear()
        self._open = True
        try:
            with _Products(self):
                yield
        finally:
            self._open = False
        for name in sorted(self._called):
            if not self._lines[name].met:
                self._refuse(name, "is used in a way that is not seen")

    def take(self, func: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
        """Compute an operation, through the crossbar if it is a product with a weight on it."""
        if name not in _SIDES:
            for value in (*args, *kwargs.values()):
                if isinstance(value, Tensor) and (held := self._held(value)) is not None:
                    self._refuse(held, f"is used in {name!r}")
            return func(*args, **kwargs)
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        if (held := self._held(x)) is not None:
            self._refuse(held, f"is the input of {name!r}")
        held = self._held(weight) or self._computed(weight)
        if held is None:
            return func(*args, **kwargs)
        x = x.to_dense() if x.is_sparse else x
        groups = given.get("groups", 1)
        product = Product(lambda x, w: func(x, w, None, **given), _SIDES[name], groups)
        self._note(held, x, groups)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            found = self._through(held, product, x, weight)
        graph = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if graph or torch._C._len_torch_function_stack():  # somebody else looks at products
            found = _Instead.apply(product.apply(x, weight), found)  # type: ignore[no-untyped-call]
        elif not torch.is_autocast_enabled(x.device.type):
            found = found.to(x.dtype)
        if bias is None:
            return found
        return found + bias.view(-1, *(1,) * product.sides).to(found.dtype)

    def _held(self, value: Tensor) -> str | None:
        """Return the name of a weight, or a view that begins where it does."""
        if value.layout is not torch.strided or not self._places:
            return None
        try:
            return self._places.get(value.data_ptr())
        except RuntimeError:
            return None

    def _computed(self, weight: Tensor) -> str | None:
        """Return the name of what a running layer has computed, or took from somebody else."""
        if isinstance(weight, nn.Parameter) and not isinstance(weight, EffectiveWeight):
            return None
        names = self._running[-1] if self._running else ()
        alike = [name for name in names if self._lines[name].shape == tuple(weight.shape)]
        if len(alike) > 1:
            self._refuse(alike[0], f"has the shape of {alike[1]!r}, and the layer computes both")
        return alike[0] if alike else None

    def _note(self, name: str, x: Tensor, groups: int) -> None:
        line = self._lines[name]
        line.met, line.groups = True, groups
        if not line.analog and x.numel():
            height = x.detach().amax()
            shares = x.detach() if bool(height == 1) else x.detach() / height
            line.analog = not torch.equal(shares.square(), shares) and bool(height != 0)

    def _refuse(self, name: str, how: str) -> None:
        raise UnsupportedModelError(
            f"weight {name!r} {how}, which is no product that a crossbar computes: those of linear "
            "and convolutional layers. Pass weights= without it to leave it outside."
        )

    def __str__(self) -> str:
        rows, total = [], 0
        for name, line in self._lines.items():
            outputs, inputs = line.shape[0], torch.Size(line.shape[1:]).numel()
            each = -(-(outputs // line.groups) // self._tile.outputs)
            tiles = line.groups * each * -(-inputs // self._tile.rows)
            total += tiles
            how = "no spikes: needs a DAC" if line.analog else "spikes"
            how = how if line.met else "not used yet"
            count = f"{tiles} tile{'' if tiles == 1 else 's'}"
            rows.append((name, f"{inputs} x {outputs}", count, how))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
        lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        size = f"{self._tile.rows} x {self._tile.columns}"
        what = f"{len(rows)} weight{'' if len(rows) == 1 else 's'}"
        return "\n".join([f"{what} on {total} tile{'' if total == 1 else 's'} of {size}", *lines])


class _Products(TorchFunctionMode):
    """Hands the operations of a pass to an array."""

    def __init__(self, array: Array) -> None:
        super().__init__()
        self._array = array

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _WATCHED:
            return self._array.take(func, name, args, kwargs or {})
        return func(*args, **(kwargs or {}))


class _Instead(torch.autograd.Function):
    """Takes what was found; the gradient flows to the ideal product."""

    @staticmethod
    def forward(ctx: Any, ideal: Tensor, found: Tensor) -> Tensor:
        return found.to(ideal.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
