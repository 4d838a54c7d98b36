"""How parameters hold other values within a block without being written to, and are put back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from spikewvat.pieces import Changes, InPieces, is_dense, laid_out_alike

Buffers = dict[str, Tensor]
"""Where perturbed weights are held, by name; kept from step to step, since fresh memory in every
step costs a small network more than the arithmetic."""

_PLAIN = (nn.Parameter, Tensor)
_use_count = getattr(torch._C, "_storage_Use_Count", None)


def check_holdable(weights: Mapping[str, Tensor]) -> None:
    """Raise where a tensor cannot hold the weights of a chip, or two names are one tensor.

    Args:
        weights: Live weights by name.

    Raises:
        ValueError: It names the weight.
    """
    seen: dict[tuple[int, int, torch.device], str] = {}
    for name, weight in weights.items():
        why = _unfit(weight)
        if why is not None:
            raise ValueError(f"weight {name!r} {why}")
        place = _place(weight)
        if weight.numel() == 0 or not place:
            continue
        key = (place, weight.numel(), weight.device)
        if key in seen:
            raise ValueError(
                f"weights {seen[key]!r} and {name!r} are the same tensor. "
                "Keep one of the two names; adapter.synaptic_weights(model) does."
            )
        seen[key] = name


def _unfit(weight: Tensor) -> str | None:
    if weight.layout is not torch.strided:
        return f"is stored as {weight.layout}, expected a dense tensor. Call to_dense() on it."
    if hasattr(weight, "device_mesh"):
        return (
            "is spread over processes (a DTensor), and the variation of a chip needs it whole. "
            "Train with DistributedDataParallel; evaluate a model that holds weight.full_tensor()."
        )
    if hasattr(type(weight.data), "__tensor_flatten__"):
        return (
            f"is a {type(weight.data).__name__}, which stores its numbers in a way of its own, "
            "expected a plain tensor. Dequantise it first."
        )
    if not weight.dtype.is_floating_point:
        return (
            f"is of {weight.dtype}, expected real floating-point numbers. Split complex weights "
            "into real and imaginary parts; dequantise integers."
        )
    if weight.numel() and 0 in weight.stride():
        strides = zip(weight.shape, weight.stride(), strict=True)
        if any(size > 1 and stride == 0 for size, stride in strides):
            return (
                "holds one number for several entries (an expanded tensor), so they cannot vary "
                "on their own. Store weight.contiguous() in the parameter."
            )
    if weight.is_inference() and not torch.is_inference_mode_enabled():
        return (
            "was made in inference mode and cannot be written outside of it. Make the model "
            "outside of torch.inference_mode(), or call this within it."
        )
    return None


def _place(weight: Tensor) -> int:
    """Return where a tensor begins, 0 where that is not known: shards of a distributed one."""
    try:
        return weight.data_ptr()
    except RuntimeError:
        return 0


def can_point(weight: Tensor) -> bool:
    """Return whether a parameter can point to another block of memory and nobody misses it.

    Views, numpy arrays and tied transposes look at the memory itself: they would go on seeing
    the weights without perturbation.
    """
    if _use_count is None or type(weight) not in _PLAIN or not weight.is_leaf:
        return False
    if weight.is_inference() or weight.numel() == 0 or not is_dense(weight):
        return False
    storage = weight.untyped_storage()
    if storage.nbytes() != weight.numel() * weight.element_size():
        return False
    return bool(_use_count(storage._cdata) == 2)  # the weight's, and that of this variable


def _spare(perturbation: object) -> Buffers:
    """Return changes that nobody else holds or looks at, so that their memory can hold weights.

    They are the gradients of a first pass, unless hooks have kept them or a distributed run has
    made them views of its buckets.
    """
    if not isinstance(perturbation, Changes) or not perturbation.own:
        return {}
    changes, nobody = perturbation.changes, _references({"": torch.empty(())})[""]
    return {
        name: changes[name]
        for name, references in _references(changes).items()
        if references == nobody and can_point(changes[name])
    }


def _references(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: sys.getrefcount(tensor) for name, tensor in tensors.items()}


@dataclass(eq=False)
class _Slot:
    """One weight while it holds other values."""

    name: str
    weight: Tensor
    original: Tensor
    """Its own memory, which is not written to while it points elsewhere."""
    buffer: Tensor
    """Where it points to, or the saved copy of what is written in place."""
    points: bool
    version: int = 0

    @property
    def held(self) -> Tensor:
        """What the perturbation is added to, without autograd."""
        return self.buffer if self.points else self.original

    def place(self) -> None:
        if self.points:
            self.weight.data = self.buffer
        self.note()

    def note(self) -> None:
        """Let autograd know that the weight has changed."""
        if not self.weight.is_inference():
            increment_version(self.weight)
            self.version = self.weight._version

    def put_back(self) -> None:
        weight, original = self.weight, self.original
        if self.points or _moved(weight, original):
            weight.data = original
        if not self.points:
            original.copy_(self.buffer)

    def disturbed(self) -> str | None:
        """Return what somebody else did to the weight meanwhile, None for nothing."""
        if _moved(self.weight, self.held):
            return "was moved or cast"
        if not self.weight.is_inference() and self.weight._version != self.version:
            return "was written to"
        return None


def _moved(weight: Tensor, where: Tensor) -> bool:
    return weight.dtype != where.dtype or _place(weight) != _place(where)


@dataclass(eq=False)
class Hold:
    """Weights that hold other values within a block.

    Args:
        weights: Live weights by name.
        buffers: Kept from call to call; None takes fresh memory.

    Raises:
        RuntimeError: If another thread holds one of the weights.
        ValueError: As :func:`check_holdable`.
    """

    weights: Mapping[str, Tensor]
    buffers: Buffers | None = None
    thread: int = field(default_factory=threading.get_ident)
    _slots: list[_Slot] = field(default_factory=list)

    def perturb(
        self,
        perturbation: Callable[[Mapping[str, Tensor]], object],
        *,
        overwrites: bool = False,
    ) -> None:
        """Make the values that the weights will hold.

        Args:
            perturbation: Called once, with tensors by name that hold the weights, have no
                gradients and may be written to.
            overwrites: Whether it writes every entry and needs none: they hold anything then.
        """
        check_holdable(self.weights)
        self._refuse_other_threads()
        buffers = {} if self.buffers is None else self.buffers
        points = {name: can_point(weight) for name, weight in self.weights.items()}
        in_pieces = isinstance(perturbation, InPieces) and all(
            points[name] and perturbation.fits(name, weight)
            for name, weight in self.weights.items()
        )
        if in_pieces:
            buffers.update(_spare(perturbation))
        slots = []
        for name, weight in self.weights.items():
            original = weight.data
            buffer = buffers.get(name)
            if buffer is None or not _alike(buffer, original) or _in_use(buffer):
                buffer = torch.empty_like(original)
                buffers[name] = buffer
            if not points[name]:
                buffer.copy_(original)
            slots.append(_Slot(name, weight, original, buffer, points[name]))
        self._slots = slots
        _open.append(self)
        if in_pieces and isinstance(perturbation, InPieces):
            for slot in slots:
                perturbation.write(slot.name, slot.original, slot.buffer)
            return
        if not overwrites:
            for slot in slots:
                if slot.points:
                    slot.buffer.copy_(slot.original)
        perturbation({slot.name: slot.held for slot in slots})

    def place(self) -> None:
        """Let the weights be what was perturbed."""
        for slot in self._slots:
            slot.place()

    def put_back(self) -> None:
        """Put the weights back bit for bit; a second call does nothing."""
        slots = self._slots
        if not slots:
            return
        # First those inside of this one that an interrupt has left behind: what they put back is
        # what this one holds.
        for inner in reversed(self._inside()):
            inner.put_back()
        for slot in slots:
            slot.put_back()
        for slot in slots:
            slot.note()
        torch.clear_autocast_cache()
        # Those who hold the same weights around this have not been disturbed.
        for outer in list(_open):
            if outer is not self:
                outer._forgive(slots)
        if self in _open:
            _open.remove(self)
        self._slots = []

    def disturbances(self) -> list[str]:
        """Return what somebody else did to the weights while they held other values."""
        found = ((slot.name, slot.disturbed()) for slot in self._slots)
        return [f"weight {name!r} {what}" for name, what in found if what is not None]

    def _inside(self) -> list[Hold]:
        """Return the holds of the same weights that this thread has taken since."""
        now = list(_open)
        mine = {id(slot.weight) for slot in self._slots}
        later = now[now.index(self) + 1 :] if self in now else []
        return [
            hold
            for hold in later
            if hold.thread == self.thread and any(id(s.weight) in mine for s in hold._slots)
        ]

    def _forgive(self, inner: list[_Slot]) -> None:
        versions = {id(slot.weight): slot.version for slot in inner}
        for slot in self._slots:
            slot.version = versions.get(id(slot.weight), slot.version)

    def _refuse_other_threads(self) -> None:
        mine = {id(weight): name for name, weight in self.weights.items()}
        for other in list(_open):
            if other.thread == self.thread:
                continue
            for slot in list(other._slots):
                if id(slot.weight) in mine:
                    raise RuntimeError(
                        f"weight {mine[id(slot.weight)]!r} is perturbed by another thread. "
                        "Give each thread a network of its own."
                    )


_open: list[Hold] = []
"""Every hold that has not been put back yet, in order."""


def held() -> list[Hold]:
    """Return the holds of this thread that have not been put back yet."""
    me = threading.get_ident()
    return [hold for hold in list(_open) if hold.thread == me]


def put_back_since(before: list[Hold]) -> None:
    """Put back what this thread has taken since ``before = held()``, the last one first."""
    for hold in reversed(held()):
        if hold not in before:
            hold.put_back()


def _alike(buffer: Tensor, weight: Tensor) -> bool:
    return type(buffer) is type(weight) and laid_out_alike(buffer, weight)


def _in_use(buffer: Tensor) -> bool:
    return any(slot.buffer is buffer for hold in list(_open) for slot in hold._slots)
