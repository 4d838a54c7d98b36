"""Chips that share a forward pass give what chips give one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from test_robustness_chips import IMAGES, Noise, StubAdapter, a_loader, a_model
from torch import nn

from spikewvat.devices.base import DeviceModel
from spikewvat.errors import UnsupportedModelError
from spikewvat.lab.models.dense import FullyConnected
from spikewvat.lab.models.slayer import FullyConnected as SlayerNet
from spikewvat.lab.models.snntorch import SpikingCNN
from spikewvat.robustness import Evaluator, simulate_chips
from spikewvat.robustness import chips as chips_file
from spikewvat.robustness.stacked import Stack, group_size, measured, pays
from spikewvat.serialisation import plain


@dataclass(frozen=True)
class Pairs(DeviceModel):
    """Seeds in turn make neighbours that are one chip."""

    calls: list

    def program(self, weights, *, generator=None):
        """Two chips each."""
        self.calls.append(1)
        return {name: w * (1 + (len(self.calls) // 2) / 10) for name, w in weights.items()}


def loss(output, labels):
    scores = output.sum(0) if output.dim() == 3 else output
    return nn.functional.cross_entropy(scores, labels)


def dense():
    torch.manual_seed(2)
    return FullyConnected(sizes=(6, 12, 4))


def with_norm():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 4))
    model(torch.rand(9, 6))
    return model


def slayer():
    torch.manual_seed(2)
    model = SlayerNet(sizes=(6, 12, 4))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10)
    return model


def images():
    return [(x[0], y) for x, y in a_loader()]


CASES = {
    "stateful": (a_model, a_loader, {"adapter": StubAdapter()}),
    "dense": (dense, images, {}),
    "batch norm and dropout": (with_norm, images, {}),
    "slayer": (slayer, a_loader, {}),  # its neurons are one operation, with a rule of their own
}


def run(case, device=None, **keywords):
    make, loader, own = CASES[case]
    device = device or Noise(3.0 if case == "slayer" else 0.3)
    keywords = {"chips": 7, "loss": loss, "seed": 4} | keywords
    return simulate_chips(make(), loader(), device, **own, **keywords)


def in_groups_of(monkeypatch, chips):
    monkeypatch.setattr(chips_file, "group_size", lambda *_: chips)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("group", [2, 3, 50])
def test_a_group_is_its_chips(monkeypatch, case, group):
    in_groups_of(monkeypatch, group)
    one, many = run(case, stack=False), run(case, stack=True)
    assert one.seeds == many.seeds
    assert one.accuracies.tolist() == many.accuracies.tolist()
    torch.testing.assert_close(one.losses, many.losses, rtol=1e-5, atol=1e-6)
    assert len(set(one.losses.tolist())) == 7


def test_only_some_weights_and_the_prefix_in_front_of_them(monkeypatch):
    in_groups_of(monkeypatch, 4)
    model, passes = dense(), []
    only = {"last": model[3].weight}
    one = simulate_chips(model, images(), Noise(0.5), weights=only, seed=1)
    shapes = []
    model[1].register_forward_hook(lambda m, a, out: shapes.append(tuple(out.shape)))
    model[3].register_forward_hook(lambda m, a, out: passes.append(1))
    many = simulate_chips(model, images(), Noise(0.5), weights=only, stack=True, seed=1)
    assert one.accuracies.tolist() == many.accuracies.tolist()
    assert one.std > 0
    # The first batch twice, the first chip alone, then 24 chips in 6 groups, three batches each.
    assert len(shapes) == len(passes) == 2 + 3 + 3 * 6


def test_equal_neighbours_are_evaluated_once(monkeypatch):
    in_groups_of(monkeypatch, 5)
    expected = run("dense", Pairs([]), chips=12, stack=False)
    held = []
    outputs = Stack.outputs

    def counted(self, inputs, chips, reduce):
        held.append(len(chips))
        return outputs(self, inputs, chips, reduce)

    monkeypatch.setattr(Stack, "outputs", counted)
    found = run("dense", Pairs([]), chips=12, stack=True)
    torch.testing.assert_close(found.losses, expected.losses)
    assert len(set(found.losses.tolist())) == 7
    # Seven kinds of chip; the first and the last are alone in their groups.
    assert sum(held) == 3 * 5


def test_stops_at_the_same_chip(monkeypatch):
    in_groups_of(monkeypatch, 8)
    plan = {"chips": 60, "interval_width": 0.09, "min_chips": 5, "loss": None}
    one, many = run("stateful", stack=False, **plan), run("stateful", stack=True, **plan)
    assert one.accuracies.tolist() == many.accuracies.tolist()
    assert 5 < many.chips < 60


def test_a_sweep_is_the_same(monkeypatch):
    in_groups_of(monkeypatch, 3)
    one, many = (
        Evaluator(dense(), images(), stack=stack).sweep(Noise, [0, 0.3], chips=7, seed=4)
        for stack in (False, True)
    )
    assert plain(one) == plain(many)


@pytest.mark.parametrize("progress", [None, KeyboardInterrupt])
def test_the_network_is_left_as_it_was(monkeypatch, progress):
    in_groups_of(monkeypatch, 3)
    model, adapter = a_model(), StubAdapter()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def interrupt(done, total, accuracy):
        if progress and done == 4:
            raise progress

    if progress:
        with pytest.raises(progress):
            simulate_chips(
                model, a_loader(), Noise(0.3), stack=True, adapter=adapter, progress=interrupt
            )
    else:
        simulate_chips(model, a_loader(), Noise(0.3), stack=True, adapter=adapter)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.v is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch._C._functorch._is_vmap_fallback_enabled()


class Reads(nn.Module):
    """Looks at a value, which a stack of chips has many of."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        y = self.layer(x)
        return y if y.sum() > 0 else y * 2


class Uncopied(nn.Sequential):
    """Cannot be copied."""

    def __deepcopy__(self, memo):
        raise TypeError("no copies")


def snntorch_cnn():
    torch.manual_seed(0)
    return SpikingCNN(input_shape=(1, 8, 8), channels=(2,), classes=4)


def pictures():
    torch.manual_seed(0)
    return [((torch.rand(3, 5, 1, 8, 8) < 0.3).float(), torch.arange(5) % 4)]


HELD = {"foreign": nn.Parameter(torch.ones(2))}
UNFIT = {
    "looks": (Reads, images, {}, "RuntimeError"),
    "cannot be copied": (lambda: Uncopied(*dense()), images, {}, "TypeError: no copies"),
    "foreign": (dense, images, {"weights": HELD}, "weight 'foreign' is no parameter"),
    "snnTorch's own surrogate": (snntorch_cnn, pictures, {}, "autograd.Function"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_cannot_be_stacked_is_looped(monkeypatch, case):
    make, loader, own, reason = UNFIT[case]
    in_groups_of(monkeypatch, 3)
    keywords = {"chips": 5, "seed": 4, **own}
    torch.manual_seed(0)
    model = make()
    expected = simulate_chips(model, loader(), Noise(0.3), **keywords)
    with pytest.raises(UnsupportedModelError, match=f"several chips at once: .*{reason}"):
        simulate_chips(model, loader(), Noise(0.3), stack=True, **keywords)
    monkeypatch.setattr(chips_file, "pays", lambda weights: True)
    found = simulate_chips(model, loader(), Noise(0.3), **keywords)
    assert plain(found) == plain(expected)


def test_faults_are_named_by_chip(monkeypatch):
    in_groups_of(monkeypatch, 3)

    @dataclass(frozen=True)
    class Late(DeviceModel):
        value: float
        calls: list

        def program(self, weights, *, generator=None):
            self.calls.append(1)
            return {
                name: w * (self.value if len(self.calls) == 3 else 1 + len(self.calls))
                for name, w in weights.items()
            }

    seeds = run("dense", chips=4).seeds
    with pytest.raises(ValueError, match=f"chip with seed {seeds[2]} of .* not finite"):
        run("dense", Late(float("nan"), []), chips=4, stack=True)
    # How many overflow depends on the order in which the processor sums.
    named = rf"NaN for \d+ of 24 images on the chip with seed {seeds[2]}"
    with pytest.raises(ValueError, match=named):
        run("dense", Late(3e38, []), chips=4, stack=True, loss=None)


def test_groups_by_memory():
    weights = {"fc": torch.zeros(10, 10)}
    assert group_size(weights, activations=400, memory=20_000) == 10
    assert group_size(weights, activations=10**9, memory=20_000) == 1
    model = dense()
    with measured(model) as activations:
        model(torch.rand(3, 6))
        model(torch.rand(5, 6))
        model(torch.rand(2, 6))
    assert activations() == 4 * 5 * (6 + 12 + 12 + 4)  # flattened, two layers, one ReLU


def test_a_processor_takes_one_chip_after_the_other():
    assert not pays({"fc": torch.zeros(2, 2)})


def test_lower_precision(monkeypatch):
    monkeypatch.setattr(chips_file, "pays", lambda weights: True)
    dtypes = set()

    def scores(output):
        dtypes.add(output.dtype)
        return output.float()

    exact = run("dense", loss=None)
    found = run("dense", loss=None, scores=scores, autocast=torch.bfloat16)
    assert dtypes == {torch.bfloat16}
    assert float((found.accuracies - exact.accuracies).abs().max()) <= 3 / IMAGES


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"stack": "yes"}, "stack must be \"auto\", True or False, got 'yes'"),
        ({"autocast": torch.float64}, "autocast must be torch.bfloat16.*got torch.float64"),
        (
            {"stack": True, "autocast": torch.bfloat16},
            "stack=True cannot be combined with autocast",
        ),
    ],
)
def test_impossible_values(keywords, message):
    with pytest.raises(ValueError, match=message):
        run("dense", **keywords)
