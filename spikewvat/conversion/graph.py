"""Trace an ANN with torch.fx into the graph of modules that its spiking network runs."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikewvat.conversion.layers import Add, Affine, Call, Dropout, MaxPool2d, Neurons
from spikewvat.conversion.memory import InPlaceTracer, Memory, written
from spikewvat.conversion.traced import (
    affine,
    folded,
    is_flatten,
    is_max_pool,
    is_shape,
    keeps_batch,
    nodes,
    plain_copy,
)
from spikewvat.errors import UnsupportedModelError

INPUT = "<images>"
_SYNAPSES = (nn.Conv1d, nn.Conv2d, nn.Linear)
_LINEAR = (nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.Flatten)
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)
_CAN = (
    "Conv1d/2d, Linear, Avg/AdaptiveAvg/MaxPool, ReLU, Dropout, Flatten, BatchNorm, additions and "
    "constants"
)


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
    """The computation of a network: modules by path, and their applications in order."""

    modules: dict[str, nn.Module]
    nodes: list[Node]
    output: str


def trace(ann: nn.Module, make_neurons: Callable[[], Neurons]) -> Graph:
    """Trace an ANN, fold its batch norm, and replace its ReLUs with neurons.

    ReLU and max pooling commute, so a pool before its ReLU is moved behind the neurons. Modules are
    copied with their effective weights (pruned, normalised or parametrized); the ANN is not
    changed. In-place changes of tensors are taken into account.

    Args:
        ann: Any module whose forward takes one tensor and does not branch on its values.
        make_neurons: Makes the neurons for one ReLU.

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
    builder = _Builder(ann, make_neurons)
    for node in traced.nodes:
        builder.read(node)
    return builder.graph()


class _Builder:
    """Reads the traced nodes in order."""

    def __init__(self, ann: nn.Module, make_neurons: Callable[[], Neurons]) -> None:
        self.ann = ann
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
        return Graph(self.modules, self.nodes, self.output)

    def read(self, node: fx.Node) -> None:
        if is_shape(node):
            return
        changed = written(node, self.ann)
        before = None if changed is None else self.env.get(changed)
        if node not in self.env:
            self._convert(node)
        for reader in self.memory.note(node):
            if self.env[reader] != before:
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
        elif node.op in ("call_function", "call_method"):
            self._function(node)
        else:
            raise UnsupportedModelError(
                f"the model uses its tensor {node.target!r} outside a layer, which cannot be "
                f"converted. Convertible are only {_CAN}."
            )

    def _module(self, node: fx.Node, path: str, module: nn.Module) -> None:
        """Convert the application of a layer."""
        if isinstance(module, nn.ReLU):
            self._relu(node, path)
        elif isinstance(module, nn.Identity):
            self.env[node] = self._source(node)
        elif isinstance(module, _BatchNorm):
            self._batch_norm(node, path, module)
        elif isinstance(module, nn.MaxPool2d):
            self._max_pool(node, path, module)
        elif isinstance(module, _DROPOUT):
            self._add(node, path, Dropout(module.p))
        elif isinstance(module, _SYNAPSES):
            self._synapses(node, path, module)
        elif isinstance(module, _LINEAR):
            if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) != (1, -1):
                raise self._cannot(path, module, "Flatten all axes after the batch.")
            self._add(node, path, copy.deepcopy(module))
        else:
            raise self._cannot(path, module, _advice(module))

    def _function(self, node: fx.Node) -> None:
        """Convert a call of a function or of a tensor's method."""
        name = node.target if isinstance(node.target, str) else node.target.__name__
        path = node.name if node.name not in self.modules else f"{node.name}_call"
        args: tuple[Any, ...] = node.args[1:]
        kwargs: dict[str, Any] = dict(node.kwargs)
        constant = affine(node)
        adds = {operator.add, operator.iadd, torch.add}
        if constant is not None:
            source, scale, shift = constant
            if source not in self.env:
                raise self._no_function(node, "Expected the output of a layer and a number.")
            both = torch.tensor([scale, shift], dtype=torch.float64)
            self._add(node, path, Affine(both[0], both[1]))
        elif node.target in adds or name in ("add", "add_"):
            if kwargs or len(node.args) != 2 or not all(a in self.env for a in nodes(node)):
                raise self._no_function(node, "Add two branches of the network, nothing else.")
            self._add(node, path, Add())
        elif name in ("relu", "relu_"):
            self._relu(node, path)
        elif name in ("flatten", "view", "reshape"):
            if not is_flatten(name, args, kwargs):
                raise self._no_function(node, "Flatten all axes after the batch: flatten(x, 1).")
            self._add(node, path, nn.Flatten())
        elif name in ("max_pool2d", "boolean_dispatch") and is_max_pool(node):
            self._max_pool(node, path, nn.MaxPool2d(*args, **kwargs))
        elif name in ("avg_pool2d", "adaptive_avg_pool2d"):
            kinds = {"avg_pool2d": nn.AvgPool2d, "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d}
            self._add(node, path, kinds[name](*args, **kwargs))
        elif name == "dropout":
            self._add(node, path, Dropout(args[0] if args else kwargs.get("p", 0.5)))
        elif name == "mean" or (name == "getitem" and keeps_batch(args)):
            function = torch.mean if name == "mean" else operator.getitem
            self._add(node, path, Call(function, *args, **kwargs))
        elif node.target is functional.pad or name == "pad":
            if kwargs.get("value", args[2] if len(args) > 2 else None):
                raise self._no_function(node, "Pad with zeros.")
            self._add(node, path, Call(functional.pad, *args, **kwargs))
        else:
            raise self._no_function(node, f"Only {_CAN} can.")

    def _source(self, node: fx.Node) -> str:
        """Return the name of a node's first input."""
        first = node.args[0] if node.args else node.kwargs.get("input")
        if not isinstance(first, fx.Node) or first not in self.env:
            raise self._no_function(node, "Expected the output of a layer as first argument.")
        return self.env[first]

    def _add(self, node: fx.Node, path: str, module: nn.Module) -> None:
        """Append an application of a module; a repeated path refers to the same module."""
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
        before = self.current[self._source(node)]
        if before is not None:
            raise UnsupportedModelError(
                f"layer {path!r} takes the output of {before!r} without a ReLU in between: "
                "negative activations cannot be sent as spikes. Put nn.ReLU between the two."
            )
        plain = plain_copy(module)
        for what, parameter in plain.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise ValueError(
                    f"{path}.{what} holds a value that is not finite. Train the model anew."
                )
        self._add(node, path, plain)
        self.current[self.env[node]] = path

    def _relu(self, node: fx.Node, path: str) -> None:
        source = self._source(node)
        if self.current[source] is None and source != INPUT and self._rectified(source):
            self.env[node] = source  # a ReLU of what is not negative
            return
        self.env[node] = self._fire(node.name, source, path)

    def _rectified(self, name: str) -> bool:
        """Return whether a value is the spikes of a layer, possibly pooled or masked."""
        for node in reversed(self.nodes):
            if node.name == name:
                module = self.modules[node.path]
                if isinstance(module, Neurons):
                    return True
                if isinstance(module, MaxPool2d | Dropout | nn.AvgPool2d | nn.Flatten):
                    return self._rectified(node.inputs[0])
        return False

    def _fire(self, name: str, source: str, path: str) -> str:
        """Append neurons to a value; a ReLU applied twice becomes two layers of neurons."""
        if path in self.modules:
            path = f"{path}_{name}"
        return self._append(name, (source,), path, self.make_neurons())

    def _max_pool(self, node: fx.Node, path: str, pool: nn.MaxPool2d) -> None:
        if pool.return_indices:
            raise self._cannot(path, pool, "Pool without return_indices.")
        if path in self.modules:
            path = f"{path}_{node.name}"
        source = self._source(node)
        before = self.current[source]
        if before is None:
            self.env[node] = self._append(node.name, (source,), path, MaxPool2d(pool))
            return
        users = list(node.users)
        if len(users) != 1 or not self._is_relu(users[0]):
            raise UnsupportedModelError(
                f"layer {path!r} takes maxima of the currents of {before!r}, which has no spiking "
                "counterpart. Put nn.ReLU directly before or directly after the pool."
            )
        relu = users[0]
        fired = self._fire(
            relu.name, source, str(relu.target) if relu.op == "call_module" else relu.name
        )
        self.env[relu] = self.env[node] = self._append(node.name, (fired,), path, MaxPool2d(pool))

    def _is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.ann.get_submodule(str(node.target)), nn.ReLU)
        name = node.target if isinstance(node.target, str) else node.target.__name__
        return name in ("relu", "relu_")

    def _batch_norm(self, node: fx.Node, path: str, norm: _BatchNorm) -> None:
        scale, shift = folded(path, norm)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        layer = self.modules.get(str(source.target)) if source.op == "call_module" else None
        once = source.op == "call_module" and self._uses(str(source.target)) == 1
        if isinstance(layer, _SYNAPSES) and once and len(source.users) == 1:
            with torch.no_grad():
                bias = torch.zeros_like(shift) if layer.bias is None else layer.bias
                layer.bias = nn.Parameter(bias * scale + shift)
                layer.weight.mul_(scale.reshape(-1, *(1,) * (layer.weight.dim() - 1)))
            self.env[node] = self.env[source]
            return
        self._add(node, path, Affine(scale, shift))

    def _uses(self, path: str) -> int:
        """Return how many times the traced forward pass applies a layer."""
        own = next(iter(self.env)).graph
        return sum(1 for n in own.nodes if n.op == "call_module" and n.target == path)

    def _cannot(self, path: str, module: nn.Module, advice: str) -> UnsupportedModelError:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        return UnsupportedModelError(f"layer {path!r} ({kind}) cannot be converted. {advice}")

    def _no_function(self, node: fx.Node, advice: str) -> UnsupportedModelError:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        return UnsupportedModelError(f"operation {name!r} ({node}) cannot be converted. {advice}")


def _advice(module: nn.Module) -> str:
    if isinstance(module, nn.Softmax | nn.LogSoftmax):
        return "Leave it out: classification compares scores, and cross-entropy includes it."
    if not list(module.children()) and "activation" in type(module).__module__:
        return "Train the model with nn.ReLU instead."
    return f"Only {_CAN} can."
