"""Run public kinds of networks through the package: each works, or is refused by name.

    python benchmarks/networks.py [--only WORD] [--write FILE]

A kind «works» where every matrix is accounted for, two equal passes give equal outputs, a chip
gives the outputs of a copy that computes with the chip's weights by hand, everything is back bit
for bit, and a training step leaves finite gradients. Packages that are not installed are skipped
by name.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from network_kinds import KINDS, Kind
from own_kinds import OWN
from torch import Tensor, nn
from torch.nn.utils import prune

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.adapters import account, claims
from spikewvat.adapters.effective import check_apart
from spikewvat.adapters.products import Products
from spikewvat.adapters.state import Call, check_state
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import EffectiveWeight, replaced


class WrongError(Exception):
    """A number would be silently wrong."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a kind.

    Args:
        kind: Which.
        word: ``works``, ``refused``, ``wrong`` or ``skipped``.
        detail: Weights and devices, the message, or the package that is missing.
    """

    kind: Kind
    word: str
    detail: str

    def row(self) -> str:
        """Return a row of the table."""
        detail = self.detail.replace("|", "\\|").replace("\n", " ")
        return f"| {self.kind.group} | {self.kind.name} | {self.word}: {detail} |"


def judge(kind: Kind) -> Verdict:
    """Put a kind to the test."""
    if kind.package and not _is_there(kind.package):
        return Verdict(kind, "skipped", f"{kind.package} is not installed")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            return Verdict(kind, "works", _tried(kind))
    except UnsupportedModelError as error:
        return Verdict(kind, "refused", str(error))
    except Exception as error:
        return Verdict(kind, "wrong", f"{type(error).__name__}: {error}")


def _tried(kind: Kind) -> str:
    model, x = kind.build()
    torch.manual_seed(0)
    twin, _ = kind.build()
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        other.data.copy_(own.data)  # some draw from generators of their own
    adapter = adapter_for(model)
    found = account(model, adapter)
    check_apart(adapter.synaptic_weights(model))
    model.eval()
    call = Call(model, x if isinstance(x, tuple) else (x,))
    check_state(model, adapter, [call], to_evaluate=True, claims=claims(model, adapter))
    weights = adapter.synaptic_weights(model)
    ideal = {name: weight.detach().clone() for name, weight in weights.items()}
    chip = Gaussian(0.2).program(ideal, generator=torch.Generator().manual_seed(1))
    for name, weight in weights.items():
        absent = getattr(weight, "_absent", None)
        chip[name] = chip[name] if absent is None else torch.where(absent, ideal[name], chip[name])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad(), _by_hand(twin.eval(), weights, ideal, chip) as used:
        by_hand = _output(twin, x)
    unused = [name for name in weights if name not in used and name not in _plain(weights)]
    if unused:
        raise WrongError(f"{unused} never meets data")
    adapter.reset_state(model)
    with torch.no_grad():
        clean = _output(model, x)
        adapter.reset_state(model)
        with replaced(weights, chip):
            on_chip = _output(model, x)
        adapter.reset_state(model)
        again = _output(model, x)
    if not torch.equal(on_chip, by_hand):
        raise WrongError(f"a chip is off by {float((on_chip - by_hand).abs().max()):.3g}")
    if torch.equal(on_chip, clean):
        raise WrongError("a chip changes nothing")
    if not torch.equal(clean, again):
        raise WrongError("the output is not back after a chip")
    adapter.reset_state(model)
    wvat = WVAT(model.train(), Gaussian(0.05), generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        wvat.backward(lambda: _output(model, x).float().square().mean())
    adapter.reset_state(model)
    changed = [
        name
        for name, parameter in model.named_parameters()
        if name in before and not torch.equal(parameter, before[name])
    ]
    if changed:
        raise WrongError(f"{changed[0]} is not back after a step")
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if not grads or not all(bool(torch.isfinite(grad).all()) for grad in grads):
        raise WrongError("gradients are missing or not finite")
    left = f", {len(found.left_out)} left out" if found.left_out else ""
    computed = sum(isinstance(weight, EffectiveWeight) for weight in weights.values())
    how = f" ({computed} computed)" if computed else ""
    return f"{len(weights)} weight{'s'[: len(weights) != 1]}{how}, {found.devices:,} devices{left}"


@contextlib.contextmanager
def _by_hand(
    twin: nn.Module,
    weights: dict[str, Tensor],
    ideal: dict[str, Tensor],
    chip: dict[str, Tensor],
) -> Iterator[set[str]]:
    """Let an equal network hold a chip: parameters overwritten, computed weights exchanged."""
    own = dict(twin.named_parameters(remove_duplicate=False))
    computed = {n: w for n, w in weights.items() if isinstance(w, EffectiveWeight)}
    used: set[str] = set()
    with torch.no_grad():
        for name, weight in weights.items():
            holder, _, last = name.rpartition(".")
            if f"{name}_mask" in dict(twin.named_buffers()):
                prune.remove(twin.get_submodule(holder), last)
                own[name] = twin.get_parameter(name)
                computed.pop(name)
            if name in own and (name not in computed or str(weight._seam).startswith("parameter")):
                own[name].copy_(chip[name])
                used.add(name)

    def see(slot: Any, value: Tensor) -> Tensor | None:
        for name in computed:
            if value.shape == ideal[name].shape and torch.equal(value, ideal[name]):
                used.add(name)
                return chip[name]
        return None

    with Products(see):
        yield used


def _plain(weights: dict[str, Tensor]) -> set[str]:
    return {name for name, weight in weights.items() if not isinstance(weight, EffectiveWeight)}


def _output(model: nn.Module, x: Any) -> Tensor:
    output = model(*x) if isinstance(x, tuple) else model(x)
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]
    return output


def _is_there(package: str) -> bool:
    if package in ("lightning", "transformers"):
        # Both look for packages that install without a GPU and then do not import.
        sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]
        with contextlib.suppress(RuntimeError):
            kept = torch.library.Library("torchvision", "DEF")
            kept.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            kept.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _KEPT.append(kept)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(package)
    except ImportError:
        return False
    return True


_KEPT: list[Any] = []


def table(verdicts: list[Verdict]) -> str:
    """Return the verdicts as a Markdown table."""
    head = ["| framework | kind | verdict |", "|---|---|---|"]
    return "\n".join([*head, *(verdict.row() for verdict in verdicts)]) + "\n"


def main(words: list[str] | None = None) -> int:
    """Judge all kinds; return 1 if one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="kinds whose framework or name has this word")
    parser.add_argument("--write", type=Path, help="file for the table")
    options = parser.parse_args(words)
    judged: Callable[[Kind], bool] = lambda kind: options.only in f"{kind.group} {kind.name}"  # noqa: E731
    verdicts = [judge(kind) for kind in (*KINDS, *OWN) if judged(kind)]
    text = table(verdicts)
    print(text)
    count = {word: sum(v.word == word for v in verdicts) for word in {v.word for v in verdicts}}
    print(", ".join(f"{number} {word}" for word, number in sorted(count.items())))
    if options.write is not None:
        options.write.write_text(text)
    return 1 if count.get("wrong") else 0


if __name__ == "__main__":
    raise SystemExit(main())
