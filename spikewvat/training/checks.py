"""What people do with a training method by mistake, and what they are told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_CLOSURE = "wvat.backward(lambda: criterion(model(x), labels))"


def loss_and_output(closure: Callable[[], Any], who: str) -> tuple[Tensor, Any]:
    """Run a closure and return its loss and output, None where it keeps that.

    Args:
        closure: As the user passed it.
        who: The class that runs it.

    Raises:
        TypeError: If it is no function, or does not return a loss.
        ValueError: If the loss is not one number, or has no graph.
    """
    _check_closure(closure)
    result = closure()
    loss, output = result, None
    if isinstance(result, tuple):
        if len(result) != 2:
            raise TypeError(
                f"the function passed to backward returned a tuple of {len(result)}, expected "
                "the loss, or (loss, output)."
            )
        loss, output = result
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"the function passed to backward returned {_what(loss)}, expected the loss, a tensor "
            f"with a graph, or (loss, output). {_remedy(loss)}"
        )
    if loss.numel() != 1:
        raise ValueError(
            f"the loss is a tensor of shape {list(loss.shape)}, expected one number. Take its "
            "mean, and where the output is returned too, return (loss, output) in this order."
        )
    if not loss.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{who} got a loss without a graph: it does not depend on a parameter that requires "
            "gradients, or was cut off by detach(), torch.no_grad() or .data. Return the loss "
            "as the criterion gives it."
        )
    return loss, output


def differentiate(loss: Tensor, backward: Callable[[Tensor], object]) -> None:
    """Differentiate a loss; say so where that was done before.

    Raises:
        RuntimeError: If the graph has been used up.
    """
    try:
        backward(loss)
    except RuntimeError as error:
        if "through the graph a second time" not in str(error):
            raise
        raise RuntimeError(
            "the loss was differentiated before: the function passed to backward calls "
            "loss.backward() itself, or uses tensors that an earlier step has computed. Let it "
            "return the loss alone, and detach what it keeps."
        ) from error


def check_grad_mode(who: str) -> None:
    """Raise RuntimeError where gradients are switched off around ``backward``."""
    if not torch.is_grad_enabled():
        mode = "torch.inference_mode()" if torch.is_inference_mode_enabled() else "torch.no_grad()"
        raise RuntimeError(
            f"{who}.backward is called within {mode}, where there are no gradients. "
            "Call it outside."
        )


def check_loop(model: nn.Module, closure: Callable[[], Any]) -> None:
    """Raise RuntimeError within a Lightning module that calls ``backward`` itself.

    In its automatic optimisation Lightning clears the gradients after ``training_step`` and takes
    those of the loss that is returned: what a method has left in ``.grad`` is lost.
    """
    for module in (model, *_held(closure)):
        if (
            isinstance(module, nn.Module)
            and getattr(module, "automatic_optimization", None) is True
        ):
            if getattr(module, "_trainer", None) is None:
                continue  # used without a trainer
            raise RuntimeError(
                f"{type(module).__name__} is optimised automatically: Lightning clears the "
                "gradients after training_step. Set self.automatic_optimization = False, and in "
                "training_step call optimizer.zero_grad(), "
                "wvat.backward(closure, backward=self.manual_backward) and optimizer.step()."
            )


def _check_closure(closure: object) -> None:
    if isinstance(closure, Tensor):
        raise TypeError(
            "backward needs a function that runs the forward pass and returns the loss, got a "
            f"tensor: a loss belongs to weights that are perturbed later. Write {_CLOSURE}."
        )
    if not callable(closure) or (isinstance(closure, nn.Module) and _takes_input(closure)):
        raise TypeError(
            "backward needs a function without arguments that returns the loss, got "
            f"{_what(closure)}. Write {_CLOSURE}."
        )


def _takes_input(module: nn.Module) -> bool:
    try:
        inspect.signature(module.forward).bind()
    except TypeError:
        return True
    return False


def _held(closure: Callable[[], Any]) -> Iterator[object]:
    """Yield what a function was defined with: ``self`` of a method, variables around a lambda."""
    yield getattr(closure, "__self__", None)
    for cell in getattr(closure, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not yet assigned
            continue


def _what(value: object) -> str:
    if value is None:
        return "None"
    article = "an" if type(value).__name__[0].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


def _remedy(loss: object) -> str:
    if loss is None:
        return "Let it end with: return loss."
    if isinstance(loss, int | float):
        return "Return the loss itself, not loss.item()."
    if hasattr(loss, "loss"):
        return "Return its .loss."
    return "Return one number: the mean, or the sum of several losses."
