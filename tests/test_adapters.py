"""Which weights are synaptic, and that every neuron is reset."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import snntorch as snn
import torch
from model_cases import ADAPTERS
from spikingjelly.activation_based import layer, neuron
from torch import nn

from spikewvat.adapters import adapter_for
from spikewvat.errors import UnsupportedModelError


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_finds_exactly_the_synaptic_weights(case):
    model = case.make()
    weights = adapter_for(model).synaptic_weights(model)
    assert set(weights) == set(case.synaptic)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, weight in weights.items():
        assert weight is parameters[name]
    assert len({id(weight) for weight in weights.values()}) == len(weights)


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_reset_forgets_everything(case):
    model = case.make().eval()
    adapter = adapter_for(model)
    carried = []
    for strength in (0.05, 0.1, 0.2, 0.5, 1.0):  # one of them is near the neurons' thresholds
        x = strength * case.input()
        adapter.reset_state(model)
        first = case.run(model, x)
        carried.append(not torch.equal(case.run(model, x), first))
        adapter.reset_state(model)
        assert torch.equal(case.run(model, x), first)
    assert any(carried) == case.carries_state


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_second_backward_and_deepcopy_after_reset(case):
    model = case.make()
    adapter = adapter_for(model)
    for _ in range(2):
        adapter.reset_state(model)
        case.run(model, case.input()).sum().backward()
    adapter.reset_state(model)
    twin = copy.deepcopy(model)
    adapter_for(twin).reset_state(twin)
    assert torch.equal(case.run(twin.eval(), case.input()), case.run(model.eval(), case.input()))


def test_other_networks_keep_their_state():
    """snnTorch's own reset clears every neuron of the process."""

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(3, 3), snn.Leaky(beta=0.9, init_hidden=True))

        def forward(self, x):
            return self.block(x)

    one, other = Holder(), Holder()
    one(torch.ones(2, 3))
    other(torch.ones(2, 3))
    kept = other.block[1].mem.clone()
    adapter_for(one).reset_state(one)
    assert one.block[1].mem.numel() == 0
    assert torch.equal(other.block[1].mem, kept)


def test_neuron_added_after_the_first_reset_is_reset():
    """SpikingJelly's reset_net remembers the modules of its first call."""
    net = nn.Sequential(layer.Linear(3, 3), neuron.LIFNode())
    adapter = adapter_for(net)
    net(torch.ones(2, 3))
    adapter.reset_state(net)
    net.append(neuron.IFNode())
    net(torch.ones(2, 3) * 5)
    adapter.reset_state(net)
    assert net[2].v == 0.0


def test_compiled_and_shared_modules():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert list(adapter_for(model).synaptic_weights(model)) == ["0.weight"]
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    assert list(adapter_for(tied).synaptic_weights(tied)) == ["0.weight"]
    compiled = torch.compile(tied)
    assert list(adapter_for(compiled).synaptic_weights(compiled)) == ["_orig_mod.0.weight"]


class CustomLIF(nn.Module):
    """A hand-written neuron that no framework knows."""

    def __init__(self):
        super().__init__()
        self.v = 0.0

    def forward(self, x):
        self.v = 0.9 * self.v + x
        return (self.v > 1).float() + self.v * 0


class ResettableLIF(CustomLIF):
    def reset(self):
        self.v = 0.0


class BufferLIF(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mem", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.mem = 0.9 * self.mem + x
        return self.mem


@pytest.mark.parametrize("make", [CustomLIF, BufferLIF])
@pytest.mark.parametrize("grad", [True, False])
def test_unknown_state_is_named(make, grad):
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(make()))
    adapter = adapter_for(model)
    adapter.reset_state(model)
    with torch.set_grad_enabled(grad):
        model(torch.ones(2, 3))
    with pytest.raises(
        UnsupportedModelError,
        match=rf"layer '1.0' \(.*{make.__name__}\) keeps state .* Pass reset_state=",
    ):
        adapter.reset_state(model)


def test_reset_state_vouches_for_unknown_layers():
    model = nn.Sequential(nn.Linear(3, 3), ResettableLIF())
    adapter = adapter_for(model, reset_state=lambda net: net[1].reset())
    model(torch.ones(2, 3))
    adapter.reset_state(model)
    assert model[1].v == 0.0


def test_stateless_custom_layers_pass():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.tensor(2.0)
            self.register_buffer("kept", torch.ones(1))

        def forward(self, x):
            return x * self.factor * self.kept

        def reset_parameters(self):
            pass

    model = nn.Sequential(nn.Linear(3, 3), Scale())
    adapter = adapter_for(model)
    for _ in range(3):
        adapter.reset_state(model)
        model(torch.ones(2, 3))


def test_model_without_synaptic_weights_says_what_it_saw():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3))
    with pytest.raises(UnsupportedModelError, match=r"modules seen: BatchNorm1d, ReLU, Sequential"):
        adapter_for(model).synaptic_weights(model)


def test_mixed_frameworks():
    model = nn.Sequential(snn.Leaky(beta=0.9), neuron.IFNode())
    with pytest.raises(UnsupportedModelError, match="mixes snnTorch and SpikingJelly"):
        adapter_for(model)


@pytest.mark.parametrize("found", ["0.0.0.0.14", "1.9"])
def test_spikingjelly_before_2(tmp_path, found):
    """An install of it in front of the path, with none of the classes that came later."""
    for folder in ("spikingjelly/activation_based", f"spikingjelly-{found}.dist-info"):
        (tmp_path / folder).mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: spikingjelly\nVersion: {found}\n"
    (tmp_path / f"spikingjelly-{found}.dist-info" / "METADATA").write_text(metadata)
    (tmp_path / "spikingjelly" / "__init__.py").touch()
    (tmp_path / "spikingjelly/activation_based/__init__.py").write_text(
        "from torch import nn\nclass IFNode(nn.Module): pass\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from spikingjelly.activation_based import IFNode\n"
        "from torch import nn\nfrom spikewvat import WVAT, Gaussian\n"
        "WVAT(nn.Sequential(nn.Linear(2, 2), IFNode()), Gaussian(0.1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.rstrip().splitlines()[-1] == (
        "spikewvat.errors.MissingExtraError: A SpikingJelly network needs SpikingJelly 2.0 or "
        f'newer, found {found}. Run: pip install --upgrade "spikewvat[spikingjelly]".'
    )


def test_lazy_weights():
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(UnsupportedModelError, match="'0.weight' is not initialised yet"):
        adapter_for(lazy).synaptic_weights(lazy)


class Louder(snn.Leaky):
    """A user's neuron: what its base class leaves behind in a step is no state of its own."""

    def forward(self, x, *state):
        return super().forward(1.1 * x, *state)


class LouderLSTM(snn.SLSTM):
    def forward(self, x, *state):
        return super().forward(1.1 * x, *state)


class Counting(Louder):
    def __init__(self, **kw):
        super().__init__(**kw)
        self.drive = torch.ones(())

    def forward(self, x, *state):
        self.drive = self.drive + 1
        return super().forward(self.drive * x, *state)


def test_subclasses_of_known_neurons_are_reset_and_their_own_state_is_named():
    for made in (Louder(beta=0.9, init_hidden=True), LouderLSTM(4, 4, init_hidden=True)):
        net, x = nn.Sequential(nn.Linear(4, 4), made), torch.rand(3, 4) * 4
        adapter = adapter_for(net)
        adapter.reset_state(net)
        first = [net(x) for _ in range(3)]
        adapter.reset_state(net)
        assert all(map(torch.equal, first, [net(x) for _ in range(3)]))
    net = nn.Sequential(nn.Linear(4, 4), Counting(beta=0.9, init_hidden=True))
    adapter = adapter_for(net)
    net(torch.rand(3, 4))
    with pytest.raises(UnsupportedModelError, match=r"'1' .*Counting.* \(drive\)"):
        adapter.reset_state(net)
