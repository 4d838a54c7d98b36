"""Who runs the loop over time: the network itself, or the evaluator for a single-step network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from spikewvat.adapters import Adapter, Claims
from spikewvat.adapters.neurons import overridden
from spikewvat.adapters.state import Call, Noted, check_state, kept
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.draws import Draws
from spikewvat.robustness.watching import Seen, watched

Time: TypeAlias = Literal["network", "steps"] | int | None
"""How a network handles time; see :class:`~spikewvat.robustness.Evaluator`."""

_IMAGES = 16  # of the first batch: enough to see how the network meets time


@dataclass(frozen=True)
class Loop:
    """Calls a single-step network once for every time step.

    Args:
        steps: Number of steps with the same input; None for inputs ``[T, B, ...]``, one step at a
            time.
    """

    steps: int | None = None

    def __call__(self, step: Callable[..., Any], x: Tensor, *args: Any, **kw: Any) -> Any:
        """Return the outputs of all steps, stacked along a leading axis."""
        inputs = (x for _ in range(self.steps)) if self.steps else (x[t] for t in range(len(x)))
        return _stacked([step(one, *args, **kw) for one in inputs])

    @contextmanager
    def around(self, model: nn.Module) -> Iterator[None]:
        """Make a network run over time within a block; hooks on it see whole passes."""
        with overridden(model, "forward", self):
            yield


class Met(NamedTuple):
    """How a network handles time.

    Args:
        loop: The loop to put around the network; None if it runs over time itself.
        image_axis: Axis of the images in its inputs; None if it could be either.
    """

    loop: Loop | None
    image_axis: int | None


def check_time(time: object) -> None:
    """Raise ValueError unless ``time`` is a valid option."""
    number = isinstance(time, int) and not isinstance(time, bool) and time >= 1
    if time not in (None, "network", "steps") and not number:
        raise ValueError(
            'time must be None, "network", "steps" or a number of time steps of at least 1, '
            f"got {time!r}."
        )


def meet(
    model: nn.Module,
    adapter: Adapter,
    batch: tuple[Tensor, Tensor],
    time: Time,
    *,
    summed: bool,
    claims: Claims | None = None,
) -> Met:
    """Infer from a few images how a network handles time, and check that resets clear its state.

    Args:
        model: The network, in evaluation mode; its neuron state is reset.
        adapter: Resets it.
        batch: Inputs, on the network's device, and labels.
        time: The option given by the user.
        summed: Whether 3-dimensional outputs are taken as ``[T, B, classes]``.
        claims: What is claimed of its matrices, see :func:`spikewvat.adapters.claims`.

    Raises:
        ValueError: If it cannot be inferred, or contradicts ``time``.
        UnsupportedModelError: If state survives a reset.
    """
    meeting = _Meeting(getattr(model, "_orig_mod", model), adapter, *batch, summed, claims)
    return Met(meeting.loop(time), meeting.image_axis)


class _Meeting:
    """A network and a few images."""

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        inputs: Tensor,
        labels: Tensor,
        summed: bool,
        claims: Claims | None,
    ) -> None:
        self._model, self._adapter, self._summed = model, adapter, summed
        self._claims = claims
        self._whole = inputs
        # Axes that may hold the images.
        self._axes = [
            axis for axis in (0, 1) if inputs.dim() > axis + 1 and inputs.shape[axis] == len(labels)
        ]
        self._few = inputs
        if len(self._axes) == 1:
            few = min(len(labels), _IMAGES)
            if self._axes == [1] and few == len(inputs):
                few -= 1  # another number than there are steps
            self._few = _part(inputs, self._axes[0], few)

    @property
    def image_axis(self) -> int | None:
        """The axis of the inputs that holds the images; None if it could be either or neither."""
        return self._axes[0] if len(self._axes) == 1 else None

    def loop(self, time: Time) -> Loop | None:
        """Return the loop to put around the network, after checking it."""
        loop = self._told(time) if time is not None else self._found()
        if loop is not None:
            with loop.around(self._model):
                self._check(None)
        elif time is not None:
            self._check(None)
        return loop

    def _told(self, time: Literal["network", "steps"] | int) -> Loop | None:
        shape = tuple(self._whole.shape)
        if time == "network":
            return None
        if time == "steps":
            if 1 not in self._axes:
                raise ValueError(
                    f'time is "steps", but inputs of shape {shape} do not have their images along '
                    "the second axis, expected [T, B, ...]. Pass the number of steps if every "
                    "step has the same input."
                )
            return Loop()
        given = int(time)
        if self._axes == [1] or (1 in self._axes and shape[0] == given and len(shape) != 4):
            if shape[0] != given or 0 in self._axes:
                raise ValueError(
                    f"time is {given}, but inputs of shape {shape} can be read as [T, B, ...] "
                    f'with {shape[0]} steps. Pass time="steps" to run them one by one, or '
                    "batches of another size."
                )
            return Loop()
        return Loop(given)

    def _found(self) -> Loop | None:
        seen = Seen()
        try:
            self._check(seen)
        except UnsupportedModelError:
            raise
        except Exception as error:
            if self._axes and 1 not in self._axes:
                self._refuse_batch_first(error)
            elif self._axes and (layers := self._step_by_step()):
                if 0 in self._axes:
                    self._ask(layers)
                return Loop()
            raise
        if _hands_state_back(seen.output):
            raise ValueError(
                "the network returns the state of its neurons besides the output of one time step, "
                "and expects it back with the next step. Wrap it in a module that runs over "
                'time, or pass time="network" if one call is enough.'
            )
        layers = seen.one_step()
        if layers and self._goes_on(self._few, layers):
            if self._axes != [1] or not self._step_by_step():
                self._ask(layers)
            return Loop()
        if self._summed and isinstance(spikes := _spikes(seen.output), Tensor):
            self._check_axes(spikes)
        return None

    def _check(self, seen: Seen | None) -> None:
        """Run twice; use the full batch if the network does not accept part of one."""
        images = self._few
        try:
            self._pass_twice(images, seen)
        except UnsupportedModelError:
            raise
        except Exception:
            if images is self._whole:
                raise
            self._few = self._whole
            self._pass_twice(self._whole, seen)

    def _pass_twice(self, x: Tensor, seen: Seen | None) -> None:
        try:
            with nullcontext() if seen is None else watched(self._model, seen):
                check_state(
                    self._model,
                    self._adapter,
                    [Call(self._model, (x,))],
                    to_evaluate=True,
                    claims=self._claims,
                )
        except Exception:
            self._adapter.reset_state(self._model)
            raise

    def _step_by_step(self) -> list[str]:
        """Return the layers that keep state between steps, if the network can run step by step."""
        # The step with most in it: nothing moves neurons without a bias.
        most = [float(self._few[t].float().abs().sum()) for t in range(len(self._few))]
        step, seen = self._few[most.index(max(most))], Seen()
        try:
            self._pass_twice(step, seen)
        except UnsupportedModelError:
            raise
        except Exception:
            return []  # the network takes neither
        layers, spikes = seen.one_step(), _spikes(seen.output)
        images = isinstance(spikes, Tensor) and spikes.dim() > 1 and len(spikes) == len(step)
        return layers if images and self._goes_on(step, layers) else []

    def _goes_on(self, x: Tensor, layers: list[str]) -> bool:
        """Return whether a second call without a reset continues from the state of the first."""
        if not layers:
            return False
        modules = dict(self._model.named_modules())
        self._adapter.reset_state(self._model)
        try:
            self._model(x.clone())
            noted = {name: Noted.of(kept(modules[name], buffers=True)) for name in layers}
            self._model(x.clone())
            return any(noted[n].differing(kept(modules[n], buffers=True)) for n in layers)
        finally:
            self._adapter.reset_state(self._model)

    def _ask(self, layers: list[str]) -> NoReturn:
        module = dict(self._model.named_modules())[layers[0]]
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        raise ValueError(
            f"the network computes one time step per call: layer {layers[0]!r} ({kind}) is called "
            "once and keeps its state for the next call. Inputs of shape "
            f"{tuple(self._whole.shape)} do not show how many steps there are. Pass time=10 to "
            'repeat the same input for 10 steps, time="steps" if inputs are [T, B, ...], or '
            'time="network" if one call is enough.'
        )

    def _refuse_batch_first(self, error: Exception) -> None:
        """Raise if the network expects time first but the inputs have images first."""
        if self._whole.dim() < 3:
            return
        whole, few = self._whole, self._few
        try:
            self._few = few.transpose(0, 1)
            layers = self._step_by_step()
        finally:
            self._whole, self._few = whole, few
        if layers:
            raise ValueError(
                f"inputs of shape {tuple(whole.shape)} have images first, expected time first, "
                "[T, B, ...]. Let the loader yield inputs.transpose(0, 1)."
            ) from error

    def _check_axes(self, spikes: Tensor) -> None:
        """Raise if outputs of several steps are not [T, B, classes]."""
        if spikes.dim() != 3 or not self._axes:
            return
        axis, shape = self._axes[-1], spikes.shape
        images = self._few.shape[axis]
        if shape[0] == shape[1] == images > 1 and len(self._axes) == 1:
            # As many steps as images: one image less shows which axis is theirs.
            images -= 1
            shape = self._once(_part(self._few, axis, images)).shape
        if shape[0] == images != shape[1]:
            raise ValueError(
                f"outputs of shape {tuple(shape)} for {images} images have images first, "
                "expected [T, B, classes]. Pass scores=lambda output: output.sum(1) if they are "
                "[B, T, classes], output.sum(2) if they are [B, classes, T]."
            )
        if len(self._axes) == 2 and shape[0] == shape[1] == images > 1 and not self._goes_down():
            raise ValueError(
                f"inputs of shape {tuple(self._whole.shape)} give outputs of shape "
                f"{tuple(shape)}, with as many steps as images, so the time axis is "
                'ambiguous. Pass batches of another size, time="network" if outputs are '
                "[T, B, classes], or scores=lambda output: output.sum(1) if they are "
                "[B, T, classes]."
            )

    def _goes_down(self) -> bool:
        """Return whether state propagates along the first axis and images stay independent."""
        down, across = self._moved(1)
        return down and not across and self._moved(0)[0]

    def _moved(self, axis: int) -> tuple[bool, bool]:
        """Change the first entry along an axis of the inputs and compare the outputs.

        Returns:
            Whether outputs ``[N, N, classes]`` change below the first row, and right of the first
            column.
        """
        few = self._few.to_dense() if self._few.is_sparse else self._few
        before = self._once(self._few)
        moved = torch.zeros_like(before[..., 0], dtype=torch.bool)
        for values in _others(few.select(axis, 0), few):
            changed = few.clone()
            changed.select(axis, 0).copy_(values)
            moved |= (self._once(changed) != before).any(2)
        return bool(moved[1:].any()), bool(moved[:, 1:].any())

    def _once(self, x: Tensor) -> Tensor:
        """Return the outputs of a pass from a reset state, with the same random state."""
        self._adapter.reset_state(self._model)
        try:
            with Draws().of(0, 0, {p.device for p in self._model.parameters()}):
                spikes: Tensor = _spikes(self._model(x.clone()))
        finally:
            self._adapter.reset_state(self._model)
        return spikes


def _part(inputs: Tensor, axis: int, images: int) -> Tensor:
    """Return the first images of a batch."""
    return inputs.index_select(axis, torch.arange(images, device=inputs.device))


def _spikes(output: Any) -> Any:
    """Return the first element of an output."""
    return output[0] if isinstance(output, tuple | list) and output else output


def _others(first: Tensor, of: Tensor) -> Iterator[Tensor]:
    """Yield changed inputs: inverted ones, and ones large enough to affect any neuron."""
    numbers = of.float()
    yield numbers.amax() + numbers.amin() - first.float()
    if first.is_floating_point():
        signs = torch.ones(first.numel(), device=first.device)
        signs[::2] = -1
        large = 100 * (1 + numbers.abs().amax()) * signs.reshape(first.shape)
        yield from (large, -large)


def _hands_state_back(output: Any) -> bool:
    """Return whether the output comes with a container of states, one per sample."""
    spikes = _spikes(output)
    if spikes is output or not isinstance(spikes, Tensor):
        return False

    def tensors(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        for part in value if isinstance(value, tuple | list) else ():
            yield from tensors(part)

    beside = [part for part in output[1:] if not isinstance(part, Tensor)]
    return any(state.shape == spikes.shape for state in tensors(beside))


def _stacked(outputs: list[Any]) -> Any:
    """Stack the outputs of all steps, element by element for tuples."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.stack(outputs)
    if isinstance(first, tuple | list) and first and isinstance(first[0], Tensor):
        alike = zip(*outputs, strict=False)
        return tuple(torch.stack(part) for part in alike if isinstance(part[0], Tensor))
    raise ValueError(
        f"the network returns a {type(first).__name__} at each step, expected a tensor, or a tuple "
        "with output spikes first. Wrap it in a module that returns its output spikes."
    )
