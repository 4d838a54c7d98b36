"""Base class of training methods, which compute the gradients in any training loop."""

from __future__ import annotations

import difflib
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, ResetState, account, adapter_for, check_model, claims
from spikewvat.adapters.effective import check_apart
from spikewvat.adapters.state import Call, check_state, recorded
from spikewvat.devices.base import check_probability
from spikewvat.errors import TrainingStalledWarning
from spikewvat.holding import Buffers, check_holdable, held, put_back_since
from spikewvat.training.checks import (
    check_grad_mode,
    check_loop,
    differentiate,
    loss_and_output,
)
from spikewvat.training.references import Arrivals, References, restored_buffers
from spikewvat.training.watch import LossWatch
from spikewvat.weights import Perturb, Weights, holds_of, perturbed, refresh, taken

Closure: TypeAlias = Callable[[], Tensor | tuple[Tensor, Any]]
"""Runs the forward pass; returns the loss (a scalar with a graph), or it and the output."""
Backward: TypeAlias = Callable[[Tensor], object]
"""What to do with a loss, such as ``torch.Tensor.backward`` or ``fabric.backward``."""


_NOTHING = nullcontext()


class GradientMethod(ABC):
    """A training method that replaces ``loss.backward()``.

    ``backward`` runs the user's closure once or several times, resets neuron state before every
    pass, leaves the gradients in ``.grad`` (added to what is there, as ``loss.backward()`` does)
    and puts the weights back bit for bit, whatever is raised. Clipping, accumulation, loss scaling,
    schedulers and all optimizers work as in plain training. Call :meth:`after_step`
    after ``optimizer.step()``: most methods do nothing there, some clip the weights.

    Running statistics of batch norm, and all other buffers, change once a step, on the pass that
    the method names.

    The model is looked at in front of every step: where a parameter or a layer was replaced
    (``load_state_dict(assign=True)``, a new head), the weights are found anew.

    Args:
        model: The model that the closure calls, or what it wraps.
        p: Probability of using the method in a step; otherwise the step is a plain one.
        weights: Parameters to perturb by name; by default the model's synaptic weights.
        adapter: Defaults to the adapter for the model's framework.
        reset_state: Resets layers that no adapter knows (see :func:`adapter_for`).
        ignore: Parameters or modules that no device holds (see :func:`adapter_for`).
        generator: Source of randomness; a seed is drawn from it here, and noise is drawn on its
            device. ``None`` uses torch's global one.
        same_noise_on_all_ranks: Draw the same noise on every rank of a distributed run.
        warn_after: Warn once when the loss has not fallen after so many steps, or is not finite;
            ``None`` never warns.
        **unknown: Refused by name.

    Raises:
        TypeError: If ``model`` is no module, or an option is unknown.
        ValueError: If ``p`` lies outside [0, 1].
        UnsupportedModelError: If the model has no synaptic weights or unknown state.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        p: float = 1.0,
        weights: Mapping[str, nn.Parameter] | None = None,
        adapter: Adapter | None = None,
        reset_state: ResetState | None = None,
        ignore: Collection[str] = (),
        generator: Generator | None = None,
        same_noise_on_all_ranks: bool = False,
        warn_after: int | None = 300,
        **unknown: object,
    ) -> None:
        if unknown:
            raise TypeError(_unknown_option(type(self), *next(iter(unknown.items()))))
        check_model(model, type(self).__name__)
        check_probability("p", p)
        self.model = model
        self.p = p
        self._find_adapter = (
            None
            if adapter is not None
            else partial(adapter_for, reset_state=reset_state, ignore=ignore)
        )
        self.adapter = adapter or adapter_for(model, reset_state=reset_state, ignore=ignore)
        self.weights: Weights = (
            self.adapter.synaptic_weights(model) if weights is None else dict(weights)
        )
        check_holdable(self.weights)
        check_apart(self.weights)
        self._found = weights is None
        self._references = References(model, self.weights)
        self._in_model = self._names_in_model()
        self.steps = 0
        self._buffers: Buffers = {}
        self._running: dict[str, object] = {}
        self._told = False
        self._choices, self._noise = _generators(generator, same_noise_on_all_ranks)
        self._watch = LossWatch(warn_after)
        self._checked = False
        self._calls: list[Call] = []  # of the first pass, until it is checked

    def backward(self, closure: Closure, *, backward: Backward = torch.Tensor.backward) -> Tensor:
        """Leave the method's gradients in ``.grad``.

        Args:
            closure: Runs the forward pass and returns the loss (a scalar with a graph), or the
                loss and the network's output, which some methods need. It is called once or
                several times; encode inputs outside so that all calls see the same.
            backward: What to do with a loss: ``lambda l: scaler.scale(l).backward()`` for a
                loss scaler, ``fabric.backward`` for Fabric.

        Returns:
            The loss that was differentiated (at the perturbed weights, where there are such),
            detached.

        Raises:
            UnsupportedModelError: If a layer turns out to keep state that nothing can reset.
            TypeError: If the closure is no function, or returns no loss.
            RuntimeError: If it is called inside itself or from two threads at once, or something
                writes to the weights within a pass at perturbed weights; if gradients are
                switched off, or Lightning's automatic optimisation would clear them.
            ValueError: If the loss is not one number or has no graph, no weight gets a gradient,
                or a weight that was passed is no parameter of the model any more.
        """
        check_grad_mode(type(self).__name__)
        token, before, grad_mode = object(), held(), torch.is_grad_enabled()
        holds = None
        try:
            try:
                if self._running.setdefault("step", token) is not token:
                    raise RuntimeError(
                        f"{type(self).__name__}.backward is called inside itself, or from two "
                        "threads at once. Give each loop a network and a method of its own."
                    )
                self._find_again()
                refresh(self.weights)
                holds = holds_of(self.weights)
                arrivals = Arrivals(self.weights)
                loss, plain = self._whole_step(closure, backward)
                self._check_kept()
                self._check_arrived(arrivals)
                self.steps += 1
                if not plain:
                    self._watch.note_loss(loss)
                return loss
            finally:
                self._end(token)
        except BaseException:
            # An interrupt may come at any moment, in the midst of putting back too.
            put_back_since(before)
            if holds is not None:
                for weight, number in holds:
                    weight.release(number)
                self._references.put_back()
            self._end(token)
            torch.set_grad_enabled(grad_mode)
            raise

    def _end(self, token: object) -> None:
        if self._running.get("step") is token:
            self._running.clear()
            self._calls = []

    def _whole_step(self, closure: Closure, backward: Backward) -> tuple[Tensor, bool]:
        """Leave the gradients in ``.grad``; return the loss, and whether the step was plain."""
        plain = self.p < 1 and float(torch.rand((), generator=self._choices)) >= self.p
        loss = self._pass(closure, backward) if plain else self._step(closure, backward)
        self._check_state()
        return loss, plain

    def _find_again(self) -> None:
        """Find the weights anew where the model has changed; raise where they were passed."""
        if self._references.hold:
            return
        if self._found:
            if self._find_adapter is not None:
                self.adapter = self._find_adapter(self.model)
            self.weights = self.adapter.synaptic_weights(self.model)
            check_holdable(self.weights)
            check_apart(self.weights)
        else:
            lost = self._in_model - self._names_in_model()
            if lost:
                names = ", ".join(map(repr, sorted(lost)))
                raise ValueError(
                    f"weights {names} are no parameters of the model any more: something has "
                    f"replaced them since. Make another {type(self).__name__} with the present "
                    "ones."
                )
        self._references = References(self.model, self.weights)
        self._in_model = self._names_in_model()
        self._buffers.clear()
        self._checked = False
        self._on_change()

    def _on_change(self) -> None:  # noqa: B027 -- most methods keep nothing of the model
        """Forget what was known of the model's layers; called where it has changed."""

    def _names_in_model(self) -> set[str]:
        """Return the names of weights that are parameters of the model."""
        parameters = {id(parameter) for parameter in self.model.parameters()}
        return {name for name, weight in self.weights.items() if id(weight) in parameters}

    def _check_kept(self) -> None:
        """Raise where the step itself has replaced weights."""
        if not self._references.hold_weights and (lost := self._in_model - self._names_in_model()):
            raise RuntimeError(
                f"weights {', '.join(map(repr, sorted(lost)))} were replaced within a step and "
                "may hold perturbed values. Load, cast and change the model between steps."
            )

    def _check_arrived(self, arrivals: Arrivals) -> None:
        """Raise where no weight got a gradient, tell once of those that got none."""
        # Where processes share buckets, gradients may arrive without a trace.
        surely = dist.is_available() and dist.is_initialized()
        missing = arrivals.missing(surely=surely)
        if not missing:
            return
        if len(missing) == arrivals.expected:
            raise ValueError(
                "no weight of the model got a gradient in this step: the closure seems to call "
                "another network, such as a copy. Make the method for the network that the "
                "closure calls, and differentiate the loss in backward."
            )
        if not self._told:
            self._told = True
            warnings.warn(
                f"weights {', '.join(map(repr, missing))} got no gradient in a step: the closure "
                "does not reach them. Leave them out with ignore=[...] if that is meant.",
                TrainingStalledWarning,
                stacklevel=3,
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs; the memory of perturbed weights is not among it."""
        if self._running:
            raise RuntimeError(
                f"{type(self).__name__} cannot be copied or pickled within its own step, where "
                "the weights are perturbed. Do so between steps."
            )
        self.adapter.reset_state(self.model)  # state with a graph cannot be copied
        state = {**vars(self), "_buffers": {}, "_references": None}
        if self._find_adapter is not None:
            state["adapter"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on with the copied model."""
        vars(self).update(state)
        if self._find_adapter is not None:
            self.adapter = self._find_adapter(self.model)
        self._references = References(self.model, self.weights)

    def after_step(self) -> None:  # noqa: B027 -- most methods have nothing to do there
        """Do to the weights what the method does after ``optimizer.step()``; mostly nothing."""

    def note_accuracy(self, accuracy: float, *, classes: int) -> None:
        """Warn once if a trained epoch's accuracy is no better than chance.

        Args:
            accuracy: Training accuracy of the epoch, as a fraction.
            classes: Number of classes.
        """
        self._watch.note_accuracy(accuracy, classes)

    def state_dict(self) -> dict[str, Any]:
        """Return generators and counters, so that a resumed run draws the same noise."""
        return {
            "method": type(self).__name__,
            "steps": self.steps,
            "choices": self._choices.get_state(),
            "noise": self._noise.get_state(),
            "watch": self._watch.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`.

        Raises:
            ValueError: If it was taken from another method.
        """
        if state["method"] != type(self).__name__:
            raise ValueError(f"the state is that of {state['method']}, not {type(self).__name__}")
        self.steps = int(state["steps"])
        self._choices.set_state(state["choices"].cpu())
        self._noise.set_state(state["noise"].cpu())
        self._watch.load_state_dict(state["watch"])

    def __str__(self) -> str:
        """Return the account of the model: where devices are, and what was left out and why."""
        chosen = None if self._found else self.weights
        return f"{type(self).__name__}: {account(self.model, self.adapter, chosen)}"

    @abstractmethod
    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        """Leave the gradients in ``.grad`` and return the loss, detached."""

    def _check_state(self) -> None:
        """After the first step, run its pass twice: no state may survive a reset."""
        calls, self._calls = self._calls, []
        self._checked = self._checked or bool(calls or self.steps)
        if calls:
            made = claims(self.model, self.adapter, None if self._found else self.weights)
            check_state(self.model, self.adapter, calls, claims=made)

    def _run(self, closure: Closure) -> tuple[Tensor, Any]:
        """Run one forward pass from fresh neuron state; return loss and output, None without."""
        if not self.steps:
            check_loop(self.model, closure)
        self.adapter.reset_state(self.model)
        if self._checked or self._calls:
            return loss_and_output(closure, type(self).__name__)
        # Where the first step has not called the model itself, it calls parts of it.
        with recorded(*(self.model.modules() if self.steps else [self.model])) as calls:
            result = loss_and_output(closure, type(self).__name__)
        self._calls = calls
        return result

    def _run_with_output(self, closure: Closure) -> tuple[Tensor, Any]:
        """Run one forward pass; complain if the closure keeps the output to itself."""
        loss, output = self._run(closure)
        if output is None:
            raise ValueError(
                f"{type(self).__name__} needs the network's output, got the loss alone. "
                "Return (loss, output) from the function that is passed to backward."
            )
        return loss, output

    def _pass(
        self,
        closure: Closure,
        backward: Backward,
        perturbation: Perturb | None = None,
        within: AbstractContextManager[object] = _NOTHING,
    ) -> Tensor:
        """Run one pass from fresh neuron state, at perturbed weights if asked for.

        Args:
            closure: Runs the forward pass.
            backward: What to do with the loss.
            perturbation: What to add to the weights.
            within: A context around the pass at perturbed weights.
        """
        if perturbation is None:
            with taken(self.weights):
                loss, _ = self._run(closure)
                differentiate(loss, backward)
        else:
            with perturbed(self.weights, perturbation, buffers=self._buffers), within:
                loss, _ = self._run(closure)
                differentiate(loss, backward)
        return loss.detach()

    @contextmanager
    def _on_the_side(self) -> Iterator[list[nn.Parameter]]:
        """Start from no gradients; put them and all buffers back in the end.

        Yields:
            All parameters, whose ``.grad`` may be kept.
        """
        parameters = self._parameters()
        stashed = self._kept(parameters)
        put_back_buffers = restored_buffers(self.model)
        try:
            for parameter in parameters:
                parameter.grad = None
            yield parameters
        finally:
            put_back_buffers()
            for parameter, grad in zip(parameters, stashed, strict=True):
                parameter.grad = grad

    def _kept(self, parameters: list[nn.Parameter]) -> list[Tensor | None]:
        """Return the gradients that are in ``.grad`` now, for :meth:`_add`."""
        grads = [parameter.grad for parameter in parameters]
        if dist.is_available() and dist.is_initialized():
            # They may be views of buckets, which the next pass overwrites.
            return [None if grad is None else grad.clone() for grad in grads]
        return grads

    def _add(self, parameters: list[nn.Parameter], grads: list[Tensor | None]) -> None:
        """Add gradients of an earlier pass to ``.grad``."""
        for parameter, grad in zip(parameters, grads, strict=True):
            if grad is not None and parameter.grad is not None:
                parameter.grad.add_(grad)
            elif grad is not None:
                parameter.grad = grad

    def _weight_gradients(self) -> Weights:
        """Return the gradients of the synaptic weights, zeros where there are none."""
        return {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad
            for name, weight in self.weights.items()
        }

    def _parameters(self) -> list[nn.Parameter]:
        own = (weight for weight in self.weights.values() if isinstance(weight, nn.Parameter))
        return list({id(p): p for p in [*self.model.parameters(), *own]}.values())


def _unknown_option(kind: type[Any], name: str, value: object) -> str:
    """Return what to say about an option that a method does not have."""
    valid = dict.fromkeys(
        parameter.name
        for base in kind.__mro__
        if "__init__" in vars(base) and issubclass(base, GradientMethod)
        for parameter in inspect.signature(vars(base)["__init__"]).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "self"
    )
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.7)
    hint = f"Did you mean {close[0]!r}?" if close else f"Its options are {', '.join(valid)}."
    return f"{kind.__name__} has no option {name!r}, got {name}={value!r}. {hint}"


def _generators(generator: Generator | None, same_noise: bool) -> tuple[Generator, Generator]:
    """Return one generator for choices, equal on all ranks, and one for noise."""
    device = torch.device("cpu") if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    rank = 0
    if dist.is_available() and dist.is_initialized():
        box = [seed]
        dist.broadcast_object_list(box, src=0)
        seed = box[0]
        rank = 0 if same_noise else dist.get_rank()
    choices = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device=device).manual_seed(seed + 1 + rank)
    return choices, noise
