"""Build the account of a model: every parameter is entered, or raises an error."""

from __future__ import annotations

from collections.abc import Callable, Collection

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import ParametrizationList

from spikewvat.adapters import foreign
from spikewvat.adapters.accounts import Account, Entry, entry
from spikewvat.adapters.effective import Masked, Tapped, seam_of
from spikewvat.adapters.products import is_matrix
from spikewvat.adapters.trial import Use, uses_of
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import EffectiveWeight, Weights

MATRICES = (nn.Linear, nn.Bilinear, _ConvNd)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_PLAIN_HOMES = ("snntorch", "spikingjelly", "spikewvat")
TABLE, NO_PRODUCT = "table that is looked up, no product", "enters no product"
_COMPUTING = ("WSConv2d", "WSLinear")  # SpikingJelly's, of standardised weights


class Ledger:
    """The account of a model during its construction."""

    def __init__(self, ignore: frozenset[str], reasons: dict[int, str]) -> None:
        self._ignore, self._reasons = ignore, reasons
        self._done: dict[int, str] = {}
        self._weights: Weights = {}
        self._synapses: list[Entry] = []
        self._left_out: dict[int, Entry] = {}
        self._held_as: dict[int, bool] = {}  # what devices hold: whether a layer computes it
        self._tables: set[int] = set()  # left out where they were met first; a layer may claim them
        self._unclear: list[str] = []
        self._vectors: set[int] = set()

    def enter(
        self,
        prefix: str,
        module: nn.Module,
        claimed: tuple[str, ...],
        reason: Callable[[nn.Module, str], str | None],
    ) -> None:
        """Account for the parameters that a module holds directly."""
        ahead = f"{prefix}." if prefix else ""
        plain = _computes_as_known(module)
        unknown: dict[str, nn.Parameter] = {}
        for name in claimed:
            self._claim(ahead + name, module, name, plain, unknown)
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in self._done or name in unknown:
                continue
            why = self._reasons.get(id(parameter))
            full = ahead + name
            if self._ignored(full):
                why = "ignored, as was asked"
            elif isinstance(module, ParametrizationList):
                why = why or "part of a parametrization of what is no synapse"
            if isinstance(parameter, UninitializedParameter):
                continue
            if parameter.dim() < 2:
                self._vectors.add(id(parameter))
            elif why is not None:
                self._leave(full, module, parameter, why)
            elif (known := reason(module, name)) is not None:
                self._leave(full, module, parameter, known, table=True)
            else:
                unknown[name] = parameter
        if unknown:
            self._try_out(ahead, module, unknown, claimed)

    def closed(self, model: nn.Module) -> tuple[Weights, Account]:
        """Return weights and account, or raise if the role of a parameter is unclear."""
        if self._unclear:
            raise UnsupportedModelError(
                f"{', '.join(self._unclear)}: may hold synapses, but this is not certain. Pass "
                "weights={name: parameter} to name all weights that devices hold, or ignore=[name, "
                "...] for those that they do not."
            )
        if not self._weights:
            seen = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
            raise UnsupportedModelError(
                f"model has no synaptic weights (modules seen: {seen}). "
                "Pass weights={name: parameter} to name them yourself."
            )
        computed = [n for n, w in self._weights.items() if isinstance(w, EffectiveWeight)]
        if computed and any(
            hasattr(module, "_torchdynamo_orig_callable")
            or type(module).__name__ == "OptimizedModule"
            for module in model.modules()
        ):
            raise UnsupportedModelError(
                f"weight {computed[0]!r} is computed in its layer, which a compiled model does "
                "not let a device act on. Leave torch.compile out, or make it a plain parameter "
                "(prune.remove, parametrize.remove_parametrizations)."
            )
        vectors = len(self._vectors - self._done.keys())
        left_out = tuple(self._left_out.values())
        return self._weights, Account(tuple(self._synapses), left_out, vectors)

    def _claim(
        self,
        full: str,
        module: nn.Module,
        name: str,
        plain: bool,
        unknown: dict[str, nn.Parameter],
    ) -> None:
        parameter = module._parameters.get(name)
        if isinstance(parameter, UninitializedParameter):
            raise UnsupportedModelError(
                f"weight {full!r} is not initialised yet. Run one batch through the model first."
            )
        seam = seam_of(module, name)
        if parameter is None and seam is None:
            return
        parts = [parameter] if seam is None and parameter is not None else []
        parts = parts if seam is None else seam.parts()
        if self._ignored(full) or all(id(part) in self._reasons for part in parts):
            for part in parts:
                why = "ignored, as was asked" if self._ignored(full) else self._reasons[id(part)]
                self._leave(full, module, part, why)
        elif seam is not None:
            if not plain and not hasattr(module, "quant_weight"):
                self._unclear.append(
                    f"weight {full!r} is {seam}, in a layer ({kind_of(module)}) that computes "
                    "with it in a way of its own"
                )
                self._done.update((id(part), full) for part in parts)
            elif any(id(part) in self._held_as for part in parts if is_matrix(part)):
                self._share(full, str(seam), parts)
            elif not all(map(self._settled, parts)):
                held = [n for n, p in module.named_parameters() if any(p is part for part in parts)]
                note = f"{seam} from {', '.join(held)}"
                self._take(full, module, EffectiveWeight(seam), parts, note)
        elif parameter is None:
            return
        elif self._held_as.get(id(parameter), False):
            self._share(full, "a parameter", parts)
        elif self._settled(parameter):
            return
        elif (absent := foreign.absent(module, name)) is not None:
            masked = Masked(module, name, absent)
            self._take(full, module, EffectiveWeight(masked), [parameter], str(masked))
        elif plain:
            self._take(full, module, parameter, [parameter], "parameter")
        else:
            unknown[name] = parameter

    def _try_out(
        self,
        ahead: str,
        module: nn.Module,
        unknown: dict[str, nn.Parameter],
        claimed: tuple[str, ...],
    ) -> None:
        """Account for parameters that enter products in a way that the class does not tell."""
        uses = uses_of(module, unknown)
        computed: dict[tuple[object, int], list[str]] = {}
        for name, parameter in unknown.items():
            use = uses.get(name, Use("unclear"))
            if use.kind == "raw":
                self._take(ahead + name, module, parameter, [parameter], "parameter")
            elif use.kind == "none" and name not in claimed:
                self._leave(ahead + name, module, parameter, NO_PRODUCT, table=True)
            elif use.kind == "computed":
                computed.setdefault((use.slot, use.index), []).append(name)
            else:
                shape = " x ".join(map(str, parameter.shape))
                self._unclear.append(f"parameter {ahead + name!r} ({kind_of(module)}, {shape})")
        for names in computed.values():
            names.sort(key=lambda name: unknown[name].numel(), reverse=True)
            parts = [unknown[name] for name in names]
            seam = Tapped(module, uses[names[0]], tuple(parts))
            full = ahead + names[0]
            self._take(full, module, EffectiveWeight(seam), parts, str(seam))
            for name in names[1:]:
                self._leave(ahead + name, module, unknown[name], f"part of {full}")

    def _take(
        self,
        full: str,
        module: nn.Module,
        weight: Tensor,
        parts: list[nn.Parameter],
        note: str,
    ) -> None:
        self._weights[full] = weight
        self._synapses.append(entry(full, module, weight, note))
        for part in parts:
            self._done[id(part)] = full
            self._held_as[id(part)] = isinstance(weight, EffectiveWeight)
            self._left_out.pop(id(part), None)
            self._tables.discard(id(part))

    def _leave(
        self, full: str, module: nn.Module, parameter: Tensor, why: str, *, table: bool = False
    ) -> None:
        self._done[id(parameter)] = full
        if table:
            self._tables.add(id(parameter))
        if parameter.dim() >= 2:
            self._left_out[id(parameter)] = entry(full, module, parameter, why)

    def _share(self, full: str, what: str, parts: list[nn.Parameter]) -> None:
        """Note that a layer computes its weight from a parameter that another layer uses."""
        other = next(self._done[id(part)] for part in parts if id(part) in self._held_as)
        self._unclear.append(
            f"weight {full!r} ({what}) shares a parameter with {other!r}, though their layers "
            "compute with different weights"
        )

    def _settled(self, parameter: Tensor) -> bool:
        return id(parameter) in self._done and id(parameter) not in self._tables

    def _ignored(self, full: str) -> bool:
        return is_among(full, self._ignore)


def _computes_as_known(module: nn.Module) -> bool:
    """Return whether a module's forward is one that takes its weights as they are."""
    if "forward" in vars(module) and not getattr(
        vars(module)["forward"], "calls_what_was_there", False
    ):
        return False
    kind = type(module)
    if kind.__module__.split(".")[0] in _PLAIN_HOMES or foreign.is_plain(module):
        return kind.__name__ not in _COMPUTING
    for known in (*MATRICES, *RECURRENT, nn.MultiheadAttention):
        if isinstance(module, known):
            forward = getattr(kind.forward, "__module__", "")
            inner = getattr(kind, "_conv_forward", None)
            return forward.startswith("torch.nn.modules") and (
                inner is None or inner.__module__.startswith("torch.nn.modules")
            )
    return True


def is_among(full: str, names: Collection[str]) -> bool:
    """Return whether a name, or that of something that contains it, is among others."""
    ahead = full.split(".")
    return any(".".join(ahead[:i]) in names for i in range(1, len(ahead) + 1))


def kind_of(module: nn.Module) -> str:
    """Return the full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
