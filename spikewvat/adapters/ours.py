"""The package's own LIF, SLAYER and TSSL-BP neurons as seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.neurons import NeuronLayer, Part, Tap, Varied, in_units, longer
from spikewvat.spiking import lif, slayer, tsslbp

_ALL: frozenset[Part] = frozenset({"spikes", "v_threshold", "tau_mem"})


class SlayerNeurons(NeuronLayer):
    """SLAYER neurons; their decay is the response kernel's, which all neurons share.

    The refractory response is as deep as the threshold is high, so a neuron with a threshold k
    times as high is one whose potential is k times as small.

    Args:
        name: Name of the module.
        module: The neurons.
    """

    def __init__(self, name: str, module: slayer.Neurons | slayer.Spike) -> None:
        super().__init__(name, module, parts=_ALL - {"tau_mem"}, timed=True)
        self._dt = module.constants.dt

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        return in_units(x, threshold), []

    def _height(self, output: Tensor) -> Tensor | float:
        return 1 / self._dt


class TsslNeurons(NeuronLayer):
    """TSSL-BP neurons, whose output is the post-synaptic current of their spikes.

    Args:
        name: Name of the module.
        module: The neurons.
    """

    def __init__(self, name: str, module: tsslbp.Neurons) -> None:
        super().__init__(name, module, parts=_ALL, timed=True)

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        module, x = self.module, in_units(x, threshold)
        if tau is None:
            return x, []
        leak = module.leak
        if leak is None:
            leak = torch.full_like(tau, 1 / module.constants.tau_mem)
        varied = torch.where(tau == 1, leak, 1 - longer(1 - leak, tau))
        return x, [(vars(module), "leak", varied)]

    def arriving(self, x: Tensor) -> Tensor:
        """Return where spikes arrive: what comes in are their currents."""
        return tsslbp.spikes_of(x, self.module.constants.tau_syn)

    def _spikes(self, output: Any) -> Tensor:
        return tsslbp.spikes_of(output, self.module.constants.tau_syn)

    def _with_spikes(self, output: Any, spikes: Tensor, changed: Tensor) -> Any:
        psc: Tensor = output
        sent = tsslbp.psp(changed.to(psc.dtype), self.module.constants.tau_syn)
        # The gradient is that of the spikes that were fired.
        return sent + (psc - psc.detach()) if psc.requires_grad else sent


class LifNeurons(NeuronLayer):
    """Leaky integrate-and-fire neurons; all that they do scales with the threshold.

    Args:
        name: Name of the module.
        module: The neurons.
    """

    def __init__(self, name: str, module: lif.Neurons | lif.Recurrent) -> None:
        super().__init__(name, module, parts=_ALL, timed=True, method="steps")

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        module, x = self.module, in_units(x, threshold)
        if tau is None:
            return x, []
        beta = torch.full_like(tau, module.constants.beta) if module.beta is None else module.beta
        held: Any = module._parameters
        return x, [(held, "beta", longer(beta.clamp(0, 1), tau))]


class RecurrentNeurons(LifNeurons):
    """LIF neurons with recurrent synapses, which see spikes as they leave the neurons.

    Args:
        name: Name of the module.
        module: The neurons.
    """

    def _call(self, tap: Tap, inner: Callable[..., Any], x: Tensor, *args: Any, **kw: Any) -> Any:
        if tap.spikes is None:
            return super()._call(tap, inner, x, *args, **kw)
        found = []
        for step in x[:, None]:  # what is sent enters the next step
            spikes, state = super()._call(tap, inner, step, *args, **kw)
            args, kw = (state._replace(sent=spikes[-1]),), {}
            found.append(spikes)
        return torch.cat(found), args[0]

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        x, entries = super()._varied(x, threshold, tau)
        if threshold is None:
            return x, entries
        synapses = self.module.recurrent
        held: Any = synapses._parameters
        return x, [*entries, (held, "weight", synapses.weight / threshold[:, None])]


def own_layer(name: str, module: nn.Module) -> NeuronLayer | None:
    """Return how to see one of the package's own layers of neurons, None for any other module."""
    if isinstance(module, lif.Recurrent):
        return RecurrentNeurons(name, module)
    if isinstance(module, lif.Neurons):
        return LifNeurons(name, module)
    if isinstance(module, slayer.Neurons | slayer.Spike):
        return SlayerNeurons(name, module)
    if isinstance(module, tsslbp.Neurons):
        return TsslNeurons(name, module)
    return None


def is_filter(module: nn.Module) -> bool:
    """Return whether a module filters spikes in front of synapses that they then reach."""
    return type(module) in (slayer.Psp, tsslbp.Psp)
