"""Track which values of a traced network share memory, and which operations write to it."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from spikewvat.conversion.rectifiers import rectifier_of_module
from spikewvat.conversion.traced import is_shape

_ASSIGNMENTS = (operator.iadd, operator.isub, operator.imul, operator.itruediv)
_VIEWS = (
    *("flatten", "view", "reshape", "getitem", "squeeze", "unsqueeze", "transpose", "permute"),
    *("movedim", "contiguous", "detach", "chunk", "split", "tensor_split", "unbind"),
    "dropout",  # in evaluation, as far as supported
)
_INPLACE = {"hardtanh": 3, "threshold": 3, "elu": 2, "celu": 2, "leaky_relu": 2}  # else 1
_VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.modules.dropout._DropoutNd)


class _Proxy(fx.Proxy):
    """A proxy that records ``x += y`` as in-place; torch's own turns it into ``x = x + y``."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._assigned(operator.itruediv, other)

    def _assigned(self, function: Any, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})


class InPlaceTracer(fx.Tracer):
    """Traces a network and keeps augmented assignments and activations visible."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the proxy of a node during tracing."""
        return _Proxy(node, self)

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace a network."""
        # Before tracing, because recognising some of them runs them.
        self._activations = {m for m in root.modules() if rectifier_of_module(m) is not None}
        return super().trace(root, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is an operation; activations of any origin are."""
        return m in self._activations or super().is_leaf_module(m, module_qualified_name)


class Memory:
    """Groups the nodes that share memory, in the order in which they are read.

    Args:
        ann: The traced network, in evaluation mode.
    """

    def __init__(self, ann: nn.Module) -> None:
        self._ann = ann
        self._owner: dict[fx.Node, fx.Node] = {}
        self._place: dict[fx.Node, int] = {}

    def note(self, node: fx.Node) -> list[fx.Node]:
        """Record the next node.

        Returns:
            Nodes whose tensors it changes and that are read again afterwards.
        """
        self._place[node] = len(self._place)
        target = written(node, self._ann)
        base = _viewed(node, self._ann) if target is None else target
        owner = self._owner[node] = node if base is None else self._owner.get(base, base)
        if target is None:
            return []
        return [
            n for n, own in self._owner.items() if own is owner and self._is_read_later(n, node)
        ]

    def _is_read_later(self, node: fx.Node, change: fx.Node) -> bool:
        return node is not change and any(
            user is not change and user not in self._place and not is_shape(user)
            for user in node.users
        )


def written(node: fx.Node, ann: nn.Module) -> fx.Node | None:
    """Return the node whose tensor an operation changes in place, or None if it makes a new one."""
    if node.op == "call_module":
        changes = getattr(ann.get_submodule(str(node.target)), "inplace", False) and not isinstance(
            ann.get_submodule(str(node.target)), _VIEW_MODULES
        )
    elif node.op == "call_method":
        name = str(node.target)
        changes = name.endswith("_") and not name.endswith("__")
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        changes = node.target in _ASSIGNMENTS or (name.endswith("_") and not name.endswith("__"))
        if name not in _VIEWS:
            place = _INPLACE.get(name, 1)
            given = node.args[place] if len(node.args) > place else node.kwargs.get("inplace")
            changes = changes or given is True  # not 1, which may be added
    else:
        return None
    return _first(node) if changes else None


def _viewed(node: fx.Node, ann: nn.Module) -> fx.Node | None:
    """Return the node whose memory an operation shares without changing it."""
    if node.op == "call_module":
        shared = isinstance(ann.get_submodule(str(node.target)), _VIEW_MODULES)
    elif node.op in ("call_function", "call_method"):
        name = node.target if isinstance(node.target, str) else node.target.__name__
        shared = name in _VIEWS
    else:
        return None
    return _first(node) if shared else None


def _first(node: fx.Node) -> fx.Node | None:
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if isinstance(first, fx.Node) else None
