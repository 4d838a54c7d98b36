"""``bench --model``: a network, data and a training function of one's own, found by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikewvat.cli.base import numbers, whole_numbers
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from torch import Generator, nn
    from torch.optim import Optimizer

    from spikewvat.lab.suites import BenchResult, Method
    from spikewvat.lab.suites.own import CorruptionAt, DeviceAt
    from spikewvat.results import RowResult
    from spikewvat.training import GradientMethod

SUITES = ("weights", "spikes")
"""What a network of one's own is tested on."""
_AVERAGED = "+swa"


def bench_own(
    *,
    suite: str | None,
    model: str,
    data: str | None,
    train: str | None,
    methods: Sequence[str],
    devices: Sequence[str],
    spikes: Sequence[str],
    severities: str | None,
    sigma: str,
    chips: int,
    seeds: str | None,
    folder: Path,
    progress: bool,
) -> BenchResult:
    """Run the bench of a network that the user brings; see the options of ``bench``.

    Raises:
        RecipeError: If an option names nothing, or something impossible.
        DataError: If the loaders are not what they should be.
        UnsupportedModelError: If the network has no synaptic weights.
        CheckpointError: If ``folder`` cannot be written to.
    """
    from spikewvat.lab.suites import bench
    from spikewvat.lab.suites.methods import METHODS
    from spikewvat.lab.suites.own import CORRUPTIONS, DEVICES
    from spikewvat.lab.trainer.console import JobsProgress

    if suite not in (None, *SUITES):
        raise RecipeError(f"--model has the suites {' and '.join(SUITES)}, got {suite!r}.")
    if data is None:
        raise RecipeError("--model needs data. Add --data MODULE:FUNCTION, which makes loaders.")
    if methods and train is None:
        raise RecipeError("--method needs --train MODULE:FUNCTION, which trains the network.")
    chosen = {text: _method(text) for text in methods} or METHODS
    on_chips = {text: _device(text) for text in devices}
    happens: dict[str, CorruptionAt] | None = {text: _corruption(text) for text in spikes}
    if not (on_chips or happens):  # nothing was chosen
        on_chips = {} if suite == "spikes" else dict(DEVICES)
        happens = {} if suite == "weights" else None
    sigmas = numbers(sigma, "--sigma")
    if min(sigmas) < 0 or chips < 1:
        raise RecipeError(f"--sigma {sigma} --chips {chips}: expected sizes from 0 and a chip.")
    numbered = [0] if seeds is None else whole_numbers(seeds, "--seeds")
    with _current_folder_first():
        make, loaders = imported(model, "--model"), imported(data, "--data")
        own_train = None if train is None else imported(train, "--train")
        count = len(on_chips) + len(CORRUPTIONS if happens is None else happens)
        with JobsProgress(
            count * (1 if own_train is None else len(chosen)), enabled=progress
        ) as bar:
            return bench(
                make,
                loaders(),
                own_train,
                methods=chosen,
                devices=on_chips,
                corruptions=happens,
                severities=None if severities is None else numbers(severities, "--severities"),
                sigmas=sigmas,
                chips=chips,
                seeds=numbered,
                title=model,
                out=folder,
                on_row=lambda name, found: bar.job(f"{name}: {outcome(found)}"),
            )


def imported(text: str, option: str) -> Callable[..., Any]:
    """Return the function that ``"module:function"`` stands for.

    Args:
        text: What was typed.
        option: Where.

    Raises:
        RecipeError: If there is no such module or function, or importing the module fails.
    """
    name, colon, attribute = text.partition(":")
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


def outcome(found: RowResult | Exception) -> str:
    """Return what became of a row or a method in one line."""
    if isinstance(found, Exception):
        return f"failed: {type(found).__name__}: {' '.join(str(found).split())}"
    return str(found.pooled[-1])


def _method(text: str) -> Method:
    """Read ``"name:key=value"``, averaged where it ends in ``+swa``; ``"swa"`` is plain averaging.

    Raises:
        RecipeError: If a name or parameter is unknown.
    """
    from spikewvat.lab.recipes.devices import stages
    from spikewvat.lab.recipes.methods import read_method
    from spikewvat.lab.recipes.registry import lookup, parameters
    from spikewvat.lab.recipes.schema import METHODS, Component
    from spikewvat.lab.suites import Method

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


def _device(text: str) -> DeviceAt:
    """Read a device whose size is open.

    Raises:
        RecipeError: If a name or parameter is unknown.
    """
    from spikewvat.lab.recipes.devices import read_device

    return read_device(text, "--device")


def _corruption(text: str) -> CorruptionAt:
    """Read what happens to spikes, with its severity open.

    Raises:
        RecipeError: If a name or parameter is unknown.
    """
    from spikewvat.lab.recipes.corruptions import read_corruption

    return read_corruption(text, "--spikes")


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Find modules in the current folder for a while, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
