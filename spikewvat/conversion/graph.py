"""Trace an ANN with torch.fx into the graph of modules that its spiking network runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikewvat.conversion.layers import Add, Affine, Concat, Dropout, MaxPool, Neurons
from spikewvat.conversion.memory import InPlaceTracer, Memory, written
from spikewvat.conversion.merging import merged
from spikewvat.conversion.rectifiers import Rectifier, rectifier_of_call, rectifier_of_module
from spikewvat.conversion.refusals import advice
from spikewvat.conversion.structure import Refused, called, is_pieces, kept_call, kept_module
from spikewvat.conversion.traced import (
    SYNAPSES,
    Constant,
    affine,
    evaluated,
    folded,
    is_shape,
    joined,
    max_pool,
    nodes,
    plain_copy,
    scale_outputs,
)
from spikewvat.errors import UnsupportedModelError

INPUT = "<images>"
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
_MAX_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)

MakeNeurons = Callable[[Tensor | None, int | None], Neurons]
"""Makes neurons from the largest activation and the number of levels, where there are such."""


@dataclass(frozen=True)
class Node:
    """One application of a module.

    Args:
        name: Unique name of the output.
        inputs: Names of the inputs.
        path: Path of the module in the network.
    """

    name: str
    inputs: tuple[str, ...]
    path: str


@dataclass
class Graph:
    """The computation of a network: modules by path, and their applications in order.

    Args:
        modules: Modules by path.
        nodes: Applications in order.
        output: Name of the output.
        handed_over: Synaptic layers that receive analog values instead of spikes, each with the
            layer whose currents these are.
        merged: Synaptic layers that have taken in another one, each with that.
    """

    modules: dict[str, nn.Module]
    nodes: list[Node]
    output: str
    handed_over: dict[str, str] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)


def trace(ann: nn.Module, make_neurons: MakeNeurons, *, analog: bool | None = None) -> Graph:
    """Trace an ANN, fold its batch norm, and replace its activations with neurons.

    Activations and max pooling commute, so a pool before its activation is moved behind the
    neurons. Modules are copied with their effective weights (pruned, normalised or parametrized);
    the ANN is not changed. In-place changes of tensors are taken into account.

    Args:
        ann: Any module whose forward takes one tensor and does not branch on its values.
        make_neurons: Makes the neurons for one activation.
        analog: Whether synaptic layers may follow each other without neurons in between, after
            those are merged that can be; ``True`` leaves them as they are.

    Returns:
        The graph.

    Raises:
        UnsupportedModelError: If the ANN contains an operation without a spiking counterpart; the
            message names it.
    """
    try:
        traced = InPlaceTracer().trace(ann)
    except Exception as error:  # whatever a forward written for tensors raises on proxies
        raise UnsupportedModelError(
            f"the forward pass of {type(ann).__name__} cannot be traced: {error} Write it as a "
            "chain of torch.nn layers and additions, without branches on values or shapes."
        ) from error
    builder = _Builder(ann, make_neurons, analog=analog)
    for node in traced.nodes:
        builder.read(node)
    return builder.graph()


class _Builder:
    """Reads the traced nodes in order."""

    def __init__(self, ann: nn.Module, make_neurons: MakeNeurons, *, analog: bool | None) -> None:
        self.ann = ann
        self.analog = analog
        self.handed_over: dict[str, str] = {}
        self.merged: dict[str, str] = {}
        self.constants: dict[fx.Node, Any] = {}
        self.make_neurons = make_neurons
        self.modules: dict[str, nn.Module] = {}
        self.nodes: list[Node] = []
        self.env: dict[fx.Node, str] = {}
        self.memory = Memory(ann)
        self.output: str | None = None
        # The synaptic layer that a value comes from without a ReLU in between: it may be negative.
        self.current: dict[str, str | None] = {}

    def graph(self) -> Graph:
        assert self.output is not None  # every traced graph has an output
        if not any(isinstance(module, Neurons) for module in self.modules.values()):
            raise UnsupportedModelError(
                "the model has no ReLU, so nothing in it would spike. "
                "Put nn.ReLU between its synaptic layers."
            )
        return Graph(self.modules, self.nodes, self.output, self.handed_over, self.merged)

    def read(self, node: fx.Node) -> None:
        if is_shape(node):
            return
        if self._constant(node):
            return
        changed = written(node, self.ann)
        before = None if changed is None else self.env.get(changed)
        if node not in self.env:
            self._convert(node)
        for reader in self.memory.note(node):
            if before is None or self.env.get(reader) != before:
                raise UnsupportedModelError(
                    f"operation {node.name!r} changes in place the tensor of which {reader.name!r} "
                    "is a view, and the view is used again later. Write it without in-place "
                    "operations."
                )
            self.env[reader] = self.env[node]

    def _convert(self, node: fx.Node) -> None:
        """Convert one node."""
        if node.op == "placeholder":
            if INPUT in self.current and node.users:
                raise UnsupportedModelError(
                    f"the model takes a second input {node.name!r}, expected one tensor of images."
                )
            self.env[node] = INPUT
            self.current[INPUT] = None
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node) or node.args[0] not in self.env:
                raise UnsupportedModelError(
                    f"the model returns {node.args[0]!r}, expected one tensor of class scores."
                )
            self.output = self.env[node.args[0]]
        elif node.op == "call_module":
            assert isinstance(node.target, str)
            self._module(node, node.target, self.ann.get_submodule(node.target))
        elif not is_pieces(node):  # which are converted where one of them is taken
            self._function(node)

    def _constant(self, node: fx.Node) -> bool:
        """Evaluate a node that does not depend on the images; return whether it is one."""
        if node.op == "get_attr":
            value: Any = self.ann
            for name in str(node.target).split("."):
                value = getattr(value, name)
            self.constants[node] = value
            return True
        given = node.all_input_nodes
        calls = node.op in ("call_function", "call_method")
        if not calls or not given or not all(n in self.constants for n in given):
            return False
        self.constants[node] = evaluated(node, self.constants)
        return True

    def _module(self, node: fx.Node, path: str, module: nn.Module) -> None:
        """Convert the application of a layer."""
        rectifier = rectifier_of_module(module)
        if rectifier is not None:
            self._rectify(node, path, rectifier)
        elif isinstance(module, nn.Identity):
            self.env[node] = self._source(node)
        elif isinstance(module, _BatchNorm):
            self._batch_norm(node, path, module)
        elif isinstance(module, _MAX_POOLS):
            self._max_pool(node, path, module)
        elif isinstance(module, _DROPOUT):
            self._add(node, path, Dropout(module.p))
        elif isinstance(module, SYNAPSES):
            self._synapses(node, path, module)
        else:
            try:
                kept = kept_module(module)
            except Refused as why:
                raise self._cannot(path, module, str(why)) from None
            if kept is None:
                raise self._cannot(path, module, advice(module))
            self._add(node, path, kept)

    def _function(self, node: fx.Node) -> None:
        """Convert a call of a function or of a tensor's method."""
        name = called(node)
        path = node.name if node.name not in self.modules else f"{node.name}_call"
        args: tuple[Any, ...] = node.args[1:]
        rectifier = rectifier_of_call(node)
        constant, factor = affine(node, self.constants), joined(node)
        if rectifier is not None:
            self._rectify(node, path, rectifier)
        elif constant is not None:
            source, scale, shift = constant
            if source not in self.env:
                raise self._no_function(node, "Expected the output of a layer and a number.")
            self._add(node, path, _affine(scale, shift), (self.env[source],))
        elif factor is not None:
            if len(nodes(node)) != 2 or not all(a in self.env for a in nodes(node)):
                raise self._no_function(node, "Add two branches of the network, nothing else.")
            self._add(node, path, Add(factor))
        elif name in ("cat", "concat", "concatenate"):
            self._concat(node, path)
        elif kind := max_pool(node):
            pool: Any = kind
            self._max_pool(node, path, pool(*args, **node.kwargs))
        elif name == "dropout":
            p: Any = args[0] if args else node.kwargs.get("p", 0.5)
            self._add(node, path, Dropout(p))
        else:
            try:
                kept = kept_call(node)
            except Refused as why:
                raise self._no_function(node, str(why)) from None
            if kept is None:
                raise self._no_function(node, advice(name))
            self._add(node, path, kept, (self._source(node),))

    def _concat(self, node: fx.Node, path: str) -> None:
        branches = node.args[0] if node.args else node.kwargs.get("tensors", ())
        dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        assert isinstance(branches, tuple | list)
        if dim == 0 or not all(isinstance(b, fx.Node) and b in self.env for b in branches):
            raise self._no_function(
                node, "Concatenate branches of the network, along another axis than the batch's."
            )
        inputs = tuple(self.env[b] for b in branches if isinstance(b, fx.Node))
        self._add(node, path, Concat(dim), inputs)

    def _source(self, node: fx.Node) -> str:
        """Return the name of a node's first input."""
        first = node.args[0] if node.args else node.kwargs.get("input")
        if isinstance(first, fx.Node) and is_pieces(first):
            first = first.args[0]
        if not isinstance(first, fx.Node) or first not in self.env:
            raise self._no_function(node, "Expected the output of a layer as first argument.")
        return self.env[first]

    def _add(
        self,
        node: fx.Node,
        path: str,
        module: nn.Module,
        inputs: tuple[str, ...] | None = None,
    ) -> None:
        """Append an application of a module; a repeated path refers to the same module."""
        if inputs is None:
            inputs = tuple(self.env[a] for a in nodes(node) if a in self.env)
        if isinstance(module, Dropout) and path in self.modules:
            path = f"{path}_{node.name}"  # each application has a mask of its own
        self.env[node] = name = self._append(node.name, inputs, path, module)
        found = [self.current[i] for i in inputs if self.current[i] is not None]
        self.current[name] = found[0] if found else None

    def _append(self, name: str, inputs: tuple[str, ...], path: str, module: nn.Module) -> str:
        self.modules.setdefault(path, module)
        name = name if path in self.current else path  # a second application needs another name
        self.nodes.append(Node(name, inputs, path))
        self.current[name] = None
        return name

    def _synapses(self, node: fx.Node, path: str, module: nn.Module) -> None:
        plain = plain_copy(module)
        for what, parameter in plain.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ValueError(
                    f"{path}.{what} holds a value that is not finite. Train the model anew."
                )
        before = self.current[self._source(node)]
        inputs = None
        if before is not None:
            both = self._merged(node, path, plain, before)
            if both is not None:
                plain, inputs = both
            elif self.analog is False:
                raise UnsupportedModelError(
                    f"layer {path!r} takes the output of {before!r} without a ReLU in between: "
                    "negative activations cannot be sent as spikes. Put nn.ReLU between the two, "
                    "or pass analog=True, which hands the currents over as analog values."
                )
            else:
                self.handed_over[path] = before
        self._add(node, path, plain, inputs)
        self.current[self.env[node]] = path

    def _merged(
        self, node: fx.Node, path: str, plain: nn.Module, before: str
    ) -> tuple[nn.Module, tuple[str, ...]] | None:
        """Take a layer out of the graph that this one can take in; return both and their inputs."""
        source = self._source(node)
        last = self.nodes[-1]
        same = {n for n, name in self.env.items() if name == source}
        users = {user for n in same for user in n.users} - same
        once = self._uses(before) == 1 and self._uses(path) == 1
        if self.analog or not once or users != {node} or (last.name, last.path) != (source, before):
            return None
        both = merged(self.modules[before], plain)
        if both is None:
            return None
        del self.modules[before], self.nodes[-1]
        if before in self.handed_over:
            self.handed_over[path] = self.handed_over.pop(before)
        self.merged[path] = before
        return both, last.inputs

    def _rectify(self, node: fx.Node, path: str, rectifier: Rectifier) -> None:
        source = self._source(node)
        plain = rectifier == Rectifier()
        if plain and source != INPUT and self._rectified(source):
            self.env[node] = source  # a ReLU of what is not negative
            return
        self.env[node] = self._fire(node.name, source, path, rectifier)

    def _rectified(self, name: str) -> bool:
        """Return whether a value is the spikes of layers, possibly pooled, masked or joined."""
        for node in reversed(self.nodes):
            if node.name == name:
                module = self.modules[node.path]
                if isinstance(module, Neurons):
                    return True
                joins = isinstance(module, Concat) or (
                    isinstance(module, Add) and module.factor >= 0
                )
                if joins or isinstance(module, MaxPool | Dropout | nn.AvgPool2d | nn.Flatten):
                    return all(self._rectified(i) for i in node.inputs)
        return False

    def _fire(self, name: str, source: str, path: str, rectifier: Rectifier) -> str:
        """Append neurons to a value; an activation applied twice becomes two layers of neurons."""
        if path in self.modules:
            path = f"{path}_{name}"
        low, high = rectifier.low, rectifier.high
        if high is not None:
            high = torch.as_tensor(high, dtype=torch.get_default_dtype()) - low
            if not bool(high > 0):
                raise UnsupportedModelError(
                    f"activation {path!r} lets values from {low:g} to {low + float(high):g} "
                    "through, which is no range. Train the model anew."
                )
        if low == 0:
            return self._append(name, (source,), path, self.make_neurons(high, rectifier.levels))
        down = self._append(f"{name}_down", (source,), f"{path}_down", _affine(1.0, -low))
        fired = self._append(name, (down,), path, self.make_neurons(high, rectifier.levels))
        return self._append(f"{name}_up", (fired,), f"{path}_up", _affine(1.0, low))

    def _max_pool(self, node: fx.Node, path: str, pool: nn.Module) -> None:
        if getattr(pool, "return_indices", False):
            raise self._cannot(path, pool, "Pool without return_indices.")
        if path in self.modules:
            path = f"{path}_{node.name}"
        source = self._source(node)
        before = self.current[source]
        if before is None:
            self.env[node] = self._append(node.name, (source,), path, MaxPool(pool))
            return
        following = list(node.users)
        rectifier = self._rectifier(following[0]) if len(following) == 1 else None
        if rectifier is None:
            raise UnsupportedModelError(
                f"layer {path!r} takes maxima of the currents of {before!r}, which has no spiking "
                "counterpart. Put nn.ReLU directly before or directly after the pool."
            )
        after = following[0]
        place = str(after.target) if after.op == "call_module" else after.name
        fired = self._fire(after.name, source, place, rectifier)
        self.env[after] = self.env[node] = self._append(node.name, (fired,), path, MaxPool(pool))

    def _rectifier(self, node: fx.Node) -> Rectifier | None:
        if node.op == "call_module":
            return rectifier_of_module(self.ann.get_submodule(str(node.target)))
        return rectifier_of_call(node) if node.op in ("call_function", "call_method") else None

    def _batch_norm(self, node: fx.Node, path: str, norm: _BatchNorm) -> None:
        scale, shift = folded(path, norm)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        layer = self.modules.get(str(source.target)) if source.op == "call_module" else None
        once = source.op == "call_module" and self._uses(str(source.target)) == 1
        if isinstance(layer, SYNAPSES) and once and len(source.users) == 1:
            scale_outputs(layer, scale, shift)
            self.env[node] = self.env[source]
            return
        self._add(node, path, Affine(scale, shift, channels=True))

    def _uses(self, path: str) -> int:
        """Return how many times the traced forward pass applies a layer."""
        own = next(iter(self.env)).graph
        return sum(1 for n in own.nodes if n.op == "call_module" and n.target == path)

    def _cannot(self, path: str, module: nn.Module, advice: str) -> UnsupportedModelError:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        return UnsupportedModelError(f"layer {path!r} ({kind}) cannot be converted. {advice}")

    def _no_function(self, node: fx.Node, advice: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"operation {called(node)!r} ({node}) cannot be converted. {advice}"
        )


def _affine(scale: Constant, shift: Constant) -> Affine:
    """Return the module for constants; numbers keep their precision."""

    def tensor(value: Constant) -> Tensor:
        return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)

    return Affine(tensor(scale), tensor(shift))
