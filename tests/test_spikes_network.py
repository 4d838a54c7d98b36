"""Corrupted networks of every framework: one chip while a block is open, as before afterwards."""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack

import pytest
import reference_spikes as reference
import snntorch as snn
import torch
from model_cases import ADAPTERS, Stepwise
from spike_cases import CORRUPTIONS, INSIDE, SENT, SpikeCase, some_events
from spikingjelly.activation_based import layer, neuron
from spread import spread
from torch import nn

from spikewvat.adapters import Tap, adapter_for
from spikewvat.adapters.currents import synapse_layers
from spikewvat.conversion.layers import Neurons as ConvertedNeurons
from spikewvat.devices import Gaussian, SixSigma
from spikewvat.errors import UnsupportedModelError
from spikewvat.lab.models.slayer import CNN as SlayerCNN
from spikewvat.robustness.corruptions import (
    DeadNeurons,
    Deletion,
    HotPixels,
    LeakMismatch,
    ReadNoise,
    StuckNeurons,
    SynapseCorruption,
    ThresholdMismatch,
    TransmissionLoss,
    corrupt,
)
from spikewvat.robustness.corruptions.base import Corruption
from spikewvat.robustness.corruptions.synapses import steps_of
from spikewvat.robustness.draws import derived
from spikewvat.spiking import slayer, tsslbp
from spikewvat.spiking.events import EventLinear
from spikewvat.spiking.stdb import Dynamics
from spikewvat.weights import replaced

SPIKING = [case for case in ADAPTERS if not case.name.startswith("torch")]
NO_LEAK = (
    "slayer-fc",
    "converted-cnn",
    "converted-hybrid",
    "spikingjelly-multi-step",
    "spikingjelly-sliding-psn",
)
NO_THRESHOLD = ("spikingjelly-sliding-psn",)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def run(model, x):
    adapter_for(model).reset_state(model)
    return model(x)


def state_of(model):
    """Return everything that a module holds, to compare before and after."""
    found = {}
    for name, module in model.named_modules():
        tables = (vars(module), module._parameters, module._buffers, module._modules)
        for number, table in enumerate(tables):
            for key, value in table.items():
                # snnTorch's ``reset`` is scratch, written in each step before it is read.
                if not isinstance(value, dict) and key != "reset":
                    found[name, number, key] = value
        found[name, "hooks"] = (dict(module._forward_pre_hooks), dict(module._forward_hooks))
        found[name, "order"] = [*module._parameters], [*module._buffers]
    return found


def same(before, after):
    assert before.keys() == after.keys()
    for key, value in before.items():
        other = after[key]
        if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
            assert value is other or (value.shape == other.shape and torch.equal(value, other)), key
        else:
            assert value is other or value == other, key


def supported(case, corruption):
    part = getattr(corruption, "PART", None)
    return not (
        (part == "tau_mem" and case.name in NO_LEAK)
        or (part == "v_threshold" and case.name in NO_THRESHOLD)
    )


def pairs(each):
    """Run a test over all networks, each with some of the corruptions in turn."""
    found = []
    for number, case in enumerate(SPIKING):
        known = [what for what in INSIDE if supported(case, what.kind(0))]
        chosen = [known[(number + 2 * n) % len(known)] for n in range(each)]
        found += [pytest.param(case, what, id=f"{case.name}-{what}") for what in chosen]
    return pytest.mark.parametrize(("case", "what"), found)


@pairs(2)
def test_severity_0_is_the_network_itself(case, what):
    model, x = case.make().eval(), case.input()
    clean = run(model, x)
    with corrupt(model, what.kind(0.0), seed=3):
        assert torch.equal(run(model, x), clean)


@pairs(3)
def test_one_seed_is_one_chip_and_afterwards_all_is_as_before(case, what):
    model, x = case.make().eval(), case.input()
    clean = run(model, x)
    adapter_for(model).reset_state(model)
    before = state_of(model)
    found = []
    for seed in (3, 3):
        with corrupt(model, what.kind(what.strong), seed=seed):
            found.append(run(model, x))
    assert torch.equal(*found)
    adapter_for(model).reset_state(model)
    same(before, state_of(model))
    assert torch.equal(run(model, x), clean)


@pairs(2)
def test_restored_after_an_exception(case, what):
    model, x = case.make().eval(), case.input()
    run(model, x)
    adapter_for(model).reset_state(model)
    before = state_of(model)
    corruption = what.kind(what.strong)

    def broken(*_):
        raise RuntimeError("in the middle of a pass")

    last = list(adapter_for(model).neuron_layers(model).values())[-1]
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        corrupt(model, corruption),
        last.tapped(Tap(spikes=broken)),
    ):
        run(model, x)
    adapter_for(model).reset_state(model)
    same(before, state_of(model))


@pytest.mark.parametrize("case", SPIKING, ids=lambda case: case.name)
def test_static_defects_are_the_same_in_every_batch(case):
    """Neurons that are drawn for a chip depend on its seed, not on how images are batched."""
    model, x = case.make().eval(), case.input()
    axis = 1 if x.dim() in (3, 5) else 0
    chip = DeadNeurons(0.3) >> StuckNeurons(0.1)
    if supported(case, ThresholdMismatch(0.5)):
        chip = chip >> ThresholdMismatch(0.5)
    out_axis = axis if case.run(model, x).dim() > 2 else 0
    with corrupt(model, chip, seed=3):
        whole = run(model, x)
        parts = [run(model, part) for part in x.split(1, axis)]
    assert torch.allclose(whole, torch.cat(parts, out_axis), atol=1e-6)


@spread("case, what", SPIKING, SENT)
def test_what_leaves_each_layer_is_the_literal_loop(case, what):
    """Spikes of every layer are those before the corruption, changed one by one."""
    model, x = case.make().eval(), case.input()
    layers = adapter_for(model).neuron_layers(model)
    fired = {name: [] for name in layers}
    sent = {name: [] for name in layers}

    def noted(where):
        def note(spikes):
            where.append(spikes.clone())
            return spikes

        return note

    corruption = what.kind(0.4)
    with ExitStack() as stack:
        for name, one in layers.items():
            stack.enter_context(one.tapped(Tap(spikes=noted(fired[name]))))
        stack.enter_context(corrupt(model, corruption, seed=3))
        for name, one in layers.items():
            stack.enter_context(one.tapped(Tap(spikes=noted(sent[name]))))
        run(model, x)
    purpose = derived(3, f"0/{corruption.name}")
    for name in layers:
        seed = derived(purpose, name)
        running = seeded(derived(seed, "pass 1"))
        assert fired[name]
        for before, after in zip(fired[name], sent[name], strict=True):
            assert ((after == 0) | (after == 1)).all()
            generator = seeded(seed) if corruption.STATIC else running
            assert torch.equal(after, what.literal(before, 0.4, generator))


# --- constants of each neuron, against as many layers of one neuron ------------------------------

SIZE = 5


def _snn(kind, **kwargs):
    def make(theta, k):
        return Stepwise(kind(beta=0.8 ** (1 / k), threshold=theta, init_hidden=True, **kwargs))

    return make


def _jelly(kind, mode, **kwargs):
    def make(theta, k):
        tau = 1 / (1 - 0.5 ** (1 / k))
        name = "init_tau" if kind is neuron.ParametricLIFNode else "tau"
        lif = kind(**{name: tau}, v_threshold=theta, step_mode=mode, **kwargs)
        return Stepwise(lif) if mode == "s" else nn.Sequential(lif)

    return make


class _Converted(nn.Module):
    def __init__(self, theta, k, **dynamics):
        super().__init__()
        self.neurons = ConvertedNeurons(Dynamics(**dynamics), leak=0.8 ** (1 / k), unit=True)
        self.neurons.set_threshold(torch.tensor(theta))

    def forward(self, x):
        return self.neurons.steps(x, len(x), None)[0]


def _converted(**dynamics):
    return lambda theta, k: _Converted(theta, k, **dynamics)


def _slayer(kind):
    return lambda theta, k: nn.Sequential(kind(slayer.SRM(v_threshold=theta, tau_syn=4.0)))


def _tssl(theta, k):
    tau = 1 / (1 - 0.75 ** (1 / k))
    return nn.Sequential(tsslbp.Neurons(tsslbp.TSSL(tau_mem=tau, v_threshold=theta)))


NEURONS = {
    "snntorch-leaky": _snn(snn.Leaky),
    "snntorch-zero": _snn(snn.Leaky, reset_mechanism="zero"),
    "snntorch-no-delay": _snn(snn.Leaky, reset_delay=False),
    "snntorch-learned": _snn(snn.Leaky, learn_threshold=True, learn_beta=True),
    "snntorch-synaptic": _snn(snn.Synaptic, alpha=0.5),
    "jelly-lif-s": _jelly(neuron.LIFNode, "s"),
    "jelly-lif-m": _jelly(neuron.LIFNode, "m", decay_input=False, v_reset=None),
    "jelly-plif-s": _jelly(neuron.ParametricLIFNode, "s", v_reset=-0.2),
    "jelly-plif-m": _jelly(neuron.ParametricLIFNode, "m"),
    "slayer-neurons": _slayer(slayer.Neurons),
    "slayer-spike": _slayer(slayer.Spike),
    "tsslbp": _tssl,
    "converted": _converted(),
    "converted-delayed": _converted(delayed=True, hard_reset=True, initial=0.0),
}


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("part", ["threshold", "leak", "both"])
def test_mismatch_is_a_network_for_every_neuron(name, part):
    if name.startswith("slayer") and part != "threshold":
        return  # see test_what_a_network_cannot_do_is_named
    torch.set_default_dtype(torch.float64)
    try:
        make = NEURONS[name]
        theta = 1.2
        x = torch.rand(25, 3, SIZE, generator=seeded()) * 1.5
        chip = {
            "threshold": ThresholdMismatch(0.6),
            "leak": LeakMismatch(0.9),
            "both": ThresholdMismatch(0.6) >> LeakMismatch(0.9),
        }[part]
        model = make(theta, 1.0)
        clean = run(model, x)
        seed = int(torch.randint(2**32, (), generator=seeded()))
        with corrupt(model, chip, seed=seed):
            found = run(model, x)
        k = {"v_threshold": [1.0] * SIZE, "tau_mem": [1.0] * SIZE}
        layer_name = next(iter(adapter_for(model).neuron_layers(model)))
        for index, stage in enumerate(chip.stages):
            own = derived(derived(seed, f"{index}/{stage.name}"), layer_name)
            k[stage.PART] = reference.mismatch(SIZE, stage.severity, seeded(own))
        for i in range(SIZE):
            alone = make(theta * k["v_threshold"][i], k["tau_mem"][i])
            assert torch.allclose(found[..., i], run(alone, x[..., i : i + 1])[..., 0], atol=1e-9)
        assert not torch.equal(found, clean)
    finally:
        torch.set_default_dtype(torch.float32)


def test_mismatch_of_channels_height_and_width():
    case = next(case for case in SPIKING if case.name == "spikingjelly-cnn-m")
    model, x = case.make().eval(), 0.3 * case.input()
    shapes = []

    class Noted(ThresholdMismatch):
        def factors(self, shape, *, generator=None):
            shapes.append(tuple(shape))
            return super().factors(shape, generator=generator)

    with corrupt(model, Noted(0.3)):
        run(model, x)
        run(model, x)
    assert shapes == [(3, 4, 4), (4, 2, 2), (4,)]  # drawn once, in the shape of an image


def test_gradients_flow_through_a_corrupted_network():
    """Training on corrupted chips works where the neurons have gradients."""
    for case in SPIKING:
        model, x = case.make(), case.input()
        chip = DeadNeurons(0.2) >> TransmissionLoss(0.2) >> ReadNoise(0.05)
        if supported(case, ThresholdMismatch(0)):
            chip = chip >> ThresholdMismatch(0.2)
        if supported(case, LeakMismatch(0)):
            chip = chip >> LeakMismatch(0.2)
        adapter = adapter_for(model)
        adapter.reset_state(model)
        with corrupt(model, chip, seed=3):
            model(x).sum().backward()
        for name, weight in adapter.synaptic_weights(model).items():
            assert weight.grad is not None, (case.name, name)
            assert torch.isfinite(weight.grad).all(), (case.name, name)
        adapter.reset_state(model)


def test_varied_leaks_of_tsslbp_have_the_gradient_of_single_neurons():
    leak = torch.tensor([0.1, 0.4], dtype=torch.float64)
    x = torch.rand(12, 2, 2, generator=seeded(), dtype=torch.float64)
    together = x.clone().requires_grad_()
    tsslbp.neurons(together, tsslbp.TSSL(), leak=leak).square().sum().backward()
    for i in range(2):
        alone = x[..., i].clone().requires_grad_()
        constants = tsslbp.TSSL(tau_mem=1 / float(leak[i]))
        tsslbp.neurons(alone, constants).square().sum().backward()
        assert torch.allclose(together.grad[..., i], alone.grad, atol=1e-12)


# --- read noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["snntorch-nested", "snntorch-cnn", "spikingjelly-cnn-m", "spikingjelly-cnn-s"]
)
def test_weights_are_read_anew_in_every_step(name):
    """The currents of each step are those of the weights of that step."""
    case = next(case for case in SPIKING if case.name == name)
    model, x = case.make().eval(), case.input()
    noted = []

    class Noted(ReadNoise):
        def read(self, weight, *, generator=None):
            noted.append((id(weight), super().read(weight, generator=generator)))
            return noted[-1][1]

    with corrupt(model, Noted(0.1), seed=3):
        run(model, x)
    live = adapter_for(model).synaptic_weights(model)
    for weight in live.values():
        read = [values for number, values in noted if number == id(weight)]
        assert len(read) == len(x)
        errors = torch.stack(read) - weight.detach()
        assert len({float(step.flatten()[0]) for step in errors}) == len(x)
        expected = 0.1 * float(SixSigma().size(weight.detach()))
        if errors.numel() > 200:
            assert float(errors.std()) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("sparse", [False, True])
def test_read_noise_is_the_literal_loop_over_steps(sparse):
    for module, x in (
        (nn.Linear(6, 3), some_events((5, 4, 6))),
        (slayer.Linear(6, 3), some_events((5, 4, 6))),
        (EventLinear(6, 3), some_events((5, 4, 6))),
        (slayer.Conv2d(2, 3, 3), some_events((5, 2, 2, 4, 5))),
        (layer.Conv2d(2, 3, 3, step_mode="m"), some_events((5, 2, 2, 4, 5))),
    ):
        if sparse and not isinstance(module, EventLinear):
            continue
        given = x.to_sparse() if sparse else x
        with corrupt(module, ReadNoise(0.1), seed=3):
            found = run(module, given)
        seed = derived(derived(3, "0/read noise"), "")
        generator = seeded(derived(seed, "pass 1"))
        for t in range(5):
            weight = module.weight.detach()
            noisy = Gaussian(0.1).program({"w": weight}, generator=generator)["w"]
            with replaced({"w": module.weight}, {"w": noisy}):
                expected = run(module, x[t : t + 1].to_sparse() if sparse else x[t : t + 1])[0]
            assert torch.allclose(found[t], expected, atol=1e-5)


def test_tied_and_recurrent_weights_are_read_where_they_are_used():
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    found = list(synapse_layers(tied, adapter_for(tied).synaptic_weights(tied)))
    assert [name for name, _, _ in found] == ["0", "1"]
    case = next(case for case in SPIKING if case.name == "snntorch-recurrent")
    model, x = case.make(), case.input()
    noted = []

    class Noted(ReadNoise):
        def read(self, weight, *, generator=None):
            noted.append(tuple(weight.shape))
            return super().read(weight, generator=generator)

    with corrupt(model, Noted(0.1)):
        run(model, x)
    assert noted.count((4, 4)) == len(x)


def test_how_many_steps_a_layer_sees():
    linear, conv = nn.Linear(3, 2), nn.Conv2d(2, 3, 3)
    assert steps_of(linear, torch.ones(5, 4, 3), 4) == (5, 1)
    assert steps_of(linear, torch.ones(20, 3), 4) == (5, 4)
    assert steps_of(linear, torch.ones(4, 3), 4) == (1, 4)
    assert steps_of(linear, torch.ones(7, 3), 4) == (1, 7)
    assert steps_of(conv, torch.ones(20, 2, 5, 5), 4) == (5, 4)
    assert steps_of(conv, torch.ones(5, 4, 2, 5, 5), 4) == (5, 1)
    assert steps_of(nn.LSTM(3, 2), torch.ones(5, 4, 3), 4) == (1, 5)


# --- events, composition, errors ------------------------------------------------------------------


def test_events_are_changed_on_the_way_in_the_same_for_any_batch():
    net, spikes = nn.Flatten(2), some_events((6, 5, 2, 4, 5))
    noise = Deletion(0.4)
    with corrupt(net, noise, seed=3):
        whole = net(spikes)
    with corrupt(net, noise, seed=3):
        parts = [net(spikes[:, :2]), net(spikes[:, 2:3]), net(spikes[:, 3:])]
    assert torch.equal(whole, torch.cat(parts, 1))
    with corrupt(net, noise, seed=4):
        assert not torch.equal(net(spikes), whole)
    assert torch.equal(net(spikes), spikes.flatten(2))


def test_sparse_events_stay_sparse():
    spikes = some_events((6, 3, 10))
    net = EventLinear(10, 4)
    for corruption in (Deletion(0.4), Deletion(0.2) >> HotPixels(0.3)):
        with corrupt(net, corruption, seed=3):
            dense = run(net, spikes)
        kinds = []
        handle = net.register_forward_pre_hook(lambda _, args: kinds.append(args[0].is_sparse))
        with corrupt(net, corruption, seed=3):
            found = run(net, spikes.to_sparse())
        handle.remove()
        assert kinds == [True]
        assert torch.allclose(found, dense, atol=1e-6)


def test_parts_of_a_composition_are_drawn_apart():
    case = next(case for case in SPIKING if case.name == "spikingjelly-single-step")
    model, x = case.make(), case.input()
    with corrupt(model, DeadNeurons(0.5), seed=3):
        alone = run(model, x)
    with corrupt(model, DeadNeurons(0.5) >> StuckNeurons(0.0), seed=3):
        assert torch.equal(run(model, x), alone)
    with corrupt(model, StuckNeurons(0.5) >> DeadNeurons(1.0), seed=3):
        assert run(model, x).sum() == 0  # later stages see what earlier ones send
    with corrupt(model, DeadNeurons(1.0) >> StuckNeurons(1.0), seed=3):
        assert run(model, x).min() == 1
    with (
        corrupt(model, DeadNeurons(1.0), seed=3),
        corrupt(model, StuckNeurons(1.0), seed=3),
    ):
        assert run(model, x).min() == 1  # blocks nest like stages


def test_spikes_of_a_dead_neuron_reach_no_recurrent_synapse():
    model = Stepwise(snn.RLeaky(beta=0.9, threshold=0.5, linear_features=3, init_hidden=True))
    with torch.no_grad():
        model.layers[0].recurrent.weight.fill_(-100.0)
    with corrupt(model, DeadNeurons(1.0)):
        run(model, torch.ones(4, 1, 3))
        assert model.layers[0].spk.sum() == 0
        assert model.layers[0].mem.min() > 0  # nothing inhibited it


def test_a_graded_spike_keeps_its_height():
    model = Stepwise(snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True, graded_spikes_factor=3.0))
    with corrupt(model, StuckNeurons(1.0)):
        assert run(model, torch.zeros(4, 1, 3)).unique().tolist() == [3.0]
    fast = nn.Sequential(slayer.Neurons(slayer.SRM(dt=0.5)))
    with corrupt(fast, StuckNeurons(1.0)):
        assert run(fast, torch.zeros(4, 1, 3)).unique().tolist() == [2.0]


def test_tsslbp_sends_the_currents_of_the_spikes_that_are_left():
    model = nn.Sequential(tsslbp.Neurons())
    with corrupt(model, StuckNeurons(1.0)):
        found = run(model, torch.zeros(6, 1, 2))
    assert torch.equal(found, tsslbp.psp(torch.ones(6, 1, 2), 3.0))
    with corrupt(model, DeadNeurons(1.0)):
        assert run(model, torch.ones(6, 1, 2)).abs().max() == 0


@pytest.mark.parametrize("tau_syn", [1.5, 3.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_behind_currents(tau_syn, dtype):
    spikes = some_events((200, 2, 5)).to(dtype)
    assert torch.equal(tsslbp.spikes_of(tsslbp.psp(spikes, tau_syn), tau_syn), spikes)


class Silent(Corruption):
    """Derived from nothing that can be applied."""

    severity = 0.1


def test_what_a_network_cannot_do_is_named():
    leaky = LeakMismatch(0.1)
    for case in SPIKING:
        for what in (ThresholdMismatch(0.1), leaky):
            if supported(case, what):
                continue
            model = case.make()
            before = state_of(model)
            names = adapter_for(model).neuron_layers(model)
            with pytest.raises(UnsupportedModelError) as caught, corrupt(model, what):
                pass
            assert repr(what) in str(caught.value)
            assert any(repr(name) in str(caught.value) for name in names)
            same(before, state_of(model))
    for what in INSIDE[:-1]:
        net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        with (
            pytest.raises(UnsupportedModelError, match="no spiking neurons.*Linear, ReLU"),
            corrupt(net, what.kind(0.1)),
        ):
            pass
    ternary = nn.Sequential(layer.Linear(3, 2), neuron.TernaryIFNode())
    with pytest.raises(UnsupportedModelError, match=r"'1' \(TernaryIFNode\)"):
        adapter_for(ternary).neuron_layers(ternary)
    parallel = nn.Sequential(snn.LeakyParallel(3, 2))
    with pytest.raises(UnsupportedModelError, match=r"'0' \(snntorch.LeakyParallel\)"):
        adapter_for(parallel).neuron_layers(parallel)


def test_misuse_is_explained():
    net = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"such as Deletion\(0\.1\), got 0\.1"), corrupt(net, 0.1):
        pass
    with pytest.raises(TypeError, match="not an EventCorruption"), corrupt(net, Silent()):
        pass
    with corrupt(net, Deletion(0.1)):
        with pytest.raises(TypeError, match="no tensor of spikes"):
            net(input=torch.ones(2, 3))
        with pytest.raises(ValueError, match=r"shape \(2, 1\), expected spikes"):
            net(torch.ones(2, 3))

    class Blind:
        def synaptic_weights(self, model):
            return {}

        def reset_state(self, model):
            pass

    with (
        pytest.raises(UnsupportedModelError, match=r"adapter Blind has no method neuron_layers"),
        corrupt(net, DeadNeurons(0.1), adapter=Blind()),
    ):
        pass


def test_the_global_generator_is_used_without_one():
    net, spikes = nn.Flatten(2), some_events((6, 5, 2, 4, 5))
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        with corrupt(net, Deletion(0.4)):
            found.append(net(spikes))
    assert torch.equal(*found)


class MyNeuron(nn.Module):
    """A user's own neuron that says what it is."""

    def __init__(self):
        super().__init__()
        self.v = 0.0

    def forward(self, x):
        self.v = 0.9 * self.v + x
        return (self.v > 1).float()

    def neuron_layer(self, name):
        from spikewvat.adapters import NeuronLayer

        return NeuronLayer(name, self, parts=frozenset({"spikes"}), timed=False)


def test_neurons_of_ones_own_can_say_what_they_are():
    net = Stepwise(nn.Linear(3, 2), MyNeuron())
    adapter = adapter_for(net, reset_state=lambda m: setattr(m.layers[1], "v", 0.0))
    with corrupt(net, StuckNeurons(1.0), adapter=adapter):
        assert net(torch.ones(2, 1, 3)).min() == 1
    with (
        pytest.raises(UnsupportedModelError, match="v_threshold of each neuron, which layer"),
        corrupt(net, ThresholdMismatch(0.1), adapter=adapter),
    ):
        pass


def test_corruptions_and_models_can_be_copied_after_a_block():
    case = next(case for case in SPIKING if case.name == "snntorch-cnn")
    model = case.make()
    with corrupt(model, DeadNeurons(0.1)):
        run(model, case.input())
    twin = copy.deepcopy(model)
    assert torch.equal(run(twin, case.input()), run(model, case.input()))


def test_a_convolutional_slayer_network():
    net = SlayerCNN(input_shape=(2, 8, 8), channels=(2, 3), kernel_sizes=(3, 3))
    x = some_events((30, 2, 2, 8, 8))
    clean = run(net, x)
    with corrupt(net, DeadNeurons(0.0) >> ThresholdMismatch(0.0)):
        assert torch.equal(run(net, x), clean)
    with corrupt(net, DeadNeurons(1.0)):
        assert run(net, x).sum() == 0


def test_every_corruption_is_in_the_shared_cases():
    from spikewvat.robustness import corruptions

    exported = [getattr(corruptions, name) for name in corruptions.__all__]
    kinds = {type(case.kind(0.0)) for case in CORRUPTIONS}
    abstract = {"Composed", "Corruption", "EventCorruption", "NeuronCorruption"}
    concrete = {
        kind
        for kind in exported
        if isinstance(kind, type)
        and issubclass(kind, Corruption)
        and kind.__name__ not in {*abstract, "SynapseCorruption"}
    }
    assert kinds == concrete
    assert issubclass(ReadNoise, SynapseCorruption)
    assert isinstance(CORRUPTIONS[0], SpikeCase)
    assert math.isclose(CORRUPTIONS[0].kind(0.25).severity, 0.25)
