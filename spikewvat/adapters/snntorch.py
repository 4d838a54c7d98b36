"""snnTorch 1.x: the only file that imports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from spikewvat.adapters.torch import TorchAdapter
from spikewvat.errors import require

snn: Any = require("snntorch", extra="snntorch", purpose="An snnTorch network")
spikegen: Any = require("snntorch.spikegen", extra="snntorch", purpose="Spike encoding")
surrogate: Any = require("snntorch.surrogate", extra="snntorch", purpose="An snnTorch network")

# Their recurrent matrix holds beta on a masked diagonal: a leak, not synapses.
_PARALLEL = tuple(
    getattr(snn, name) for name in ("LeakyParallel", "LeakyKernel") if hasattr(snn, name)
)


class SnnTorchAdapter(TorchAdapter):
    """Resets snnTorch neurons wherever they are nested, and finds recurrent synapses.

    ``snntorch.utils.reset`` looks at direct children only and resets every neuron of the same
    class in the process, but never a copy; this walks the model instead.
    """

    def _own_synapses(self, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        yield from super()._own_synapses(module)
        # One-to-one recurrence is a vector or scalar V, registered again on ``recurrent``.
        if isinstance(module, snn.RLeaky | snn.RSynaptic):
            v = module._parameters.get("V")
            if v is not None:
                yield "V", v

    def _not_synaptic(self, model: nn.Module) -> Iterator[nn.Parameter]:
        for module in model.modules():
            if isinstance(module, _PARALLEL):
                yield module.rnn.weight_hh_l0

    def _reset_module(self, module: nn.Module) -> None:
        if not (isinstance(module, snn.SpikingNeuron) and hasattr(module, "reset_mem")):
            return
        reset = module.reset_mem()
        states = reset if isinstance(reset, tuple) else (reset,)
        # snnTorch keeps zeros of the last batch's shape. Emptied, as in a new neuron, the state
        # fits any batch size, and an average or copy of the model has buffers of equal shape.
        for name, buffer in module._buffers.items():
            if buffer is not None and any(buffer is state for state in states):
                module._buffers[name] = buffer.new_zeros(0)

    def _knows(self, module: nn.Module) -> bool:
        if type(module).__module__.split(".")[0] == "snntorch":
            return True
        if isinstance(module, snn.SpikingNeuron) and hasattr(module, "reset_mem"):
            return True
        return super()._knows(module)
