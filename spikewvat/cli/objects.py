"""Turn option texts into objects: the user's functions, methods, devices, corruptions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from torch import Generator, nn
    from torch.optim import Optimizer

    from spikewvat.comparison import Method
    from spikewvat.comparison.run import CorruptionAt, DeviceAt
    from spikewvat.devices import DeviceModel
    from spikewvat.training import GradientMethod

ALL = "all"
"""Stands for all devices or corruptions that are compared by default."""
_AVERAGED = "+swa"


def imported(text: str, option: str) -> Callable[..., Any]:
    """Import the function that ``"module:function"`` names.

    Args:
        text: Text of the option.
        option: Name of the option, for messages.

    Raises:
        RecipeError: If there is no such module or function, or importing the module fails.
    """
    name, colon, attribute = text.partition(":")
    if name.endswith(".py"):
        dotted = name.removesuffix(".py").replace("/", ".")
        raise RecipeError(f"{option} {text!r}: expected a module. Write {dotted}:{attribute}.")
    if not (name and colon and attribute):
        raise RecipeError(f"{option} {text!r}: expected MODULE:FUNCTION, such as mine:make_model.")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise RecipeError(f"{option} {text!r}: {name} needs {error.name}: {error}.") from error
        raise RecipeError(
            f"{option} {text!r}: there is no module {name!r} in {str(Path.cwd())!r} or installed."
        ) from error
    except Exception as error:
        raise RecipeError(
            f"{option} {text!r}: {name} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        from spikewvat.lab.recipes.registry import nearest

        functions = [key for key, value in vars(module).items() if callable(value)]
        raise RecipeError(
            f"{option} {text!r}: {name} has no function {attribute!r}. "
            f"{nearest(attribute, functions)}"
        )
    function: Callable[..., Any] = found
    return function


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Search the current folder for modules within a block, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def tests(
    devices: Sequence[str], corruptions: Sequence[str]
) -> tuple[Mapping[str, DeviceAt | DeviceModel], Mapping[str, CorruptionAt] | None]:
    """Return devices and corruptions by name, in the form that :func:`spikewvat.compare` expects.

    Args:
        devices: Texts of the option; ``"all"`` stands for the default ones.
        corruptions: As ``devices``. If both are empty, all devices and corruptions are used.

    Raises:
        RecipeError: If a name or parameter is unknown.
        DataError: If a device file is missing or malformed.
    """
    from spikewvat.comparison import DEVICES
    from spikewvat.lab.recipes.corruptions import read_corruption
    from spikewvat.lab.recipes.devices import read_device

    if not (devices or corruptions):
        return DEVICES, None
    on_chips: dict[str, DeviceAt | DeviceModel] = {}
    for text in devices:
        if text == ALL:
            on_chips |= DEVICES
            continue
        device = read_device(text, "--device")
        on_chips[text] = device if device.is_open else device()
    if ALL in corruptions:
        if len(corruptions) > 1:
            raise RecipeError(f"--corruption {ALL}: expected no other --corruption with it.")
        return on_chips, None
    return on_chips, {text: read_corruption(text, "--corruption") for text in corruptions}


def method(text: str) -> Method:
    """Parse ``"name:key=value"``; ``+swa`` adds averaging, ``"swa"`` averages plain training.

    Raises:
        RecipeError: If a name or parameter is unknown.
    """
    from spikewvat.comparison import Method
    from spikewvat.lab.recipes.devices import stages
    from spikewvat.lab.recipes.methods import read_method
    from spikewvat.lab.recipes.registry import lookup, parameters
    from spikewvat.lab.recipes.schema import METHODS, Component

    name = "plain" if text == "swa" else text.removesuffix(_AVERAGED)
    table, *more = stages(name, "--method")
    if more:
        raise RecipeError(f"--method {text!r}: expected one method, such as sam:rho=0.1.")
    if table["name"] == "ptq":
        raise RecipeError(
            '--method ptq is plain training. Add --device "quantized:bits=8>>gaussian".'
        )
    if "device" in parameters(lookup(METHODS, table["name"], "--method")):
        table = {"device": "gaussian:sigma=0.1", **table}
    read = read_method(Component.model_validate(table), "--method")

    def make(
        model: nn.Module, *, generator: Generator, optimizer: Optimizer | None, **_: object
    ) -> GradientMethod:
        return read(model, optimizer, seed=generator.initial_seed())

    return Method(make, averaged=text == "swa" or text.endswith(_AVERAGED))
