"""snnTorch 1.x: the only file that imports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from spikewvat.adapters.neurons import Entry, NeuronLayer, Part, Varied, longer, sent
from spikewvat.adapters.torch import TorchAdapter
from spikewvat.errors import UnsupportedModelError, require

snn: Any = require("snntorch", extra="snntorch", purpose="An snnTorch network")
spikegen: Any = require("snntorch.spikegen", extra="snntorch", purpose="Spike encoding")
surrogate: Any = require("snntorch.surrogate", extra="snntorch", purpose="An snnTorch network")

# Their recurrent matrix holds beta on a masked diagonal: a leak, not synapses.
_PARALLEL = tuple(
    getattr(snn, name) for name in ("LeakyParallel", "LeakyKernel") if hasattr(snn, name)
)

_CONSTANTS = ("alpha", "beta", "threshold", "graded_spikes_factor", "tau")

# What a step leaves as attributes, and the next one computes anew.
_LEFT_BEHIND = ("reset", "spk")

# Their threshold and beta enter step by step, element by element.
_LEAKY = (snn.Leaky, snn.RLeaky, snn.Synaptic, snn.RSynaptic)
_STEPWISE = (*_LEAKY, snn.Lapicque, snn.Alpha, snn.SLSTM, snn.SConv2dLSTM)
_SEVERAL = tuple(getattr(snn, name) for name in ("StateLeaky", "LinearLeaky") if hasattr(snn, name))


class SnnTorchNeurons(NeuronLayer):
    """snnTorch neurons, called once for each step with their input first.

    Args:
        name: Name of the module.
        module: The neurons.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        parts: set[Part] = {"spikes"}
        if isinstance(module, _LEAKY) and not module.inhibition:
            parts |= {"v_threshold", "tau_mem"}
        super().__init__(name, module, parts=parts, timed=False)

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        entries: list[Entry] = []
        for key, factor in (("threshold", threshold), ("beta", tau)):
            if factor is not None:
                own = self.module._parameters
                held = own if key in own else self.module._buffers
                value = held[key]
                new = value * factor if key == "threshold" else longer(value.clamp(0, 1), factor)
                entries.append((held, key, new.to(value.dtype)))
        return x, entries

    def _with_spikes(self, output: Any, spikes: Tensor, changed: Tensor) -> Any:
        replaced, held = super()._with_spikes(output, spikes, changed), self.module._buffers
        if held.get("spk") is sent(output):  # what recurrent synapses see in the next step
            held["spk"] = sent(replaced)
        return replaced

    def _height(self, output: Tensor) -> Tensor | float:
        height: Tensor = self.module.graded_spikes_factor.detach()
        return height


class SnnTorchAdapter(TorchAdapter):
    """Resets snnTorch neurons wherever they are nested, and finds recurrent synapses.

    ``snntorch.utils.reset`` looks at direct children only and resets every neuron of the same
    class in the process, but never a copy; this walks the model instead.
    """

    def _claimed(self, module: nn.Module) -> Iterator[str]:
        yield from super()._claimed(module)
        # One-to-one recurrence is a vector or scalar V, registered again on ``recurrent``.
        if isinstance(module, snn.RLeaky | snn.RSynaptic) and "V" in module._parameters:
            yield "V"

    def _reason(self, module: nn.Module, name: str) -> str | None:
        if type(module).__module__.split(".")[0] == "snntorch":
            return "constants of neurons"
        if isinstance(module, snn.SpikingNeuron) and name in _CONSTANTS:
            return "constants of neurons"
        return super()._reason(module, name)

    def _not_synaptic(self, model: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
        for module in model.modules():
            if isinstance(module, _PARALLEL):
                yield module.rnn.weight_hh_l0, "decay of neurons on a masked diagonal"

    def _neurons(self, name: str, module: nn.Module) -> NeuronLayer | None:
        if isinstance(module, _STEPWISE) and not isinstance(module, _SEVERAL):
            return SnnTorchNeurons(name, module)
        if isinstance(module, (snn.SpikingNeuron, *_PARALLEL)):
            raise UnsupportedModelError(
                f"neurons {name!r} (snntorch.{type(module).__name__}) run over all steps at once "
                "in a way that no adapter can tap. Use snn.Leaky step by step."
            )
        return super()._neurons(name, module)

    def _reset_module(self, module: nn.Module) -> None:
        super()._reset_module(module)
        if not (isinstance(module, snn.SpikingNeuron) and hasattr(module, "reset_mem")):
            return
        reset = module.reset_mem()
        states = reset if isinstance(reset, tuple) else (reset,)
        for name in _LEFT_BEHIND:  # a new neuron has none
            vars(module).pop(name, None)
        # snnTorch keeps zeros of the last batch's shape. Emptied, as in a new neuron, the state
        # fits any batch size, and an average or copy of the model has buffers of equal shape.
        for name, buffer in module._buffers.items():
            if buffer is not None and any(buffer is state for state in states):
                module._buffers[name] = buffer.new_zeros(0)

    def _knows(self, module: nn.Module) -> bool:
        return type(module).__module__.split(".")[0] == "snntorch" or super()._knows(module)
