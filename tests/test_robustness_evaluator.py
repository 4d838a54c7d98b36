"""One evaluator for every question: what is read once, evaluated once, and when anew."""

from __future__ import annotations

import copy

import pytest
import torch
from spike_cases import some_events
from test_robustness_chips import Counted
from test_spikes_sweep import a_loader, a_model
from torch import nn

import spikewvat
from spikewvat.devices import Gaussian
from spikewvat.robustness import Evaluator, simulate_chips
from spikewvat.robustness.corruptions import Deletion, corrupt
from spikewvat.serialisation import plain
from spikewvat.spiking.losses import rate_cross_entropy

CHECK = 2  # an Evaluator runs its first batch twice, to see that no state survives


class Passes:
    """Counts the forward passes of a network."""

    def __init__(self, model):
        self.count = 0
        model.register_forward_pre_hook(self.add)

    def add(self, *_):
        self.count += 1

    def taken(self):
        count, self.count = self.count, 0
        return count


def everything(test):
    """Ask an evaluator all that can be asked."""
    around = test.landscape
    return [
        test.accuracy,
        plain(test.chips(Gaussian(0.1), chips=3)),
        plain(test.sweep(Gaussian, [0, 0.1], chips=3)),
        plain(test.corrupt(Deletion, [0, 0.5], chips=3)),
        plain(around.lines(Gaussian(0.1), lines=2, points=3)),
        plain(around.surface(points=2)),
        plain(around.sharpness(Gaussian(0.1), chips=3, ascent_points=1)),
    ]


def test_it_is_exported():
    assert spikewvat.Evaluator is Evaluator


def test_the_loader_is_read_once_for_all_questions():
    model, loader = a_model(), Counted(a_loader())
    found = everything(Evaluator(model, loader))
    assert loader.passes == 1
    # Each question alone, to a new evaluator, has the same answer.
    alone = []
    for number in range(len(found)):
        loader = Counted(a_loader())
        alone.append(everything(Evaluator(model, loader, cache_bytes=0))[number])
        assert loader.passes > 10
    assert alone == found


def test_equal_seeds_are_equal_chips_in_all_methods():
    test = Evaluator(a_model(), a_loader(), loss=rate_cross_entropy)
    device, kinds = Gaussian(0.1), {"chips": 4, "seed": 5}
    chips = test.chips(device, **kinds)
    others = [
        test.sweep(Gaussian, [0.1], **kinds)[0],
        test.corrupt(Deletion, [0.0], device=device, **kinds)[0],
        test.landscape.sharpness(device, **kinds).report,
        simulate_chips(a_model(), a_loader(), device, loss=rate_cross_entropy, **kinds),
    ]
    for other in others:
        assert other.seeds == chips.seeds
        assert torch.equal(other.accuracies, chips.accuracies)
        assert torch.equal(other.losses, chips.losses)


def test_no_variation_is_evaluated_once_and_anew_when_the_network_changes():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    torch.manual_seed(0)
    loader = [(torch.randn(30, 6), torch.arange(30) % 3)]
    test = Evaluator(model, loader)
    passes, before = Passes(model), test.accuracy
    assert (test.accuracy, test.accuracy) == (before, before)
    test.sweep(Gaussian, [0.0], chips=3)
    assert passes.taken() == 1 + CHECK

    def changed(change):
        change()
        assert test.accuracy == Evaluator(model, loader).accuracy
        assert passes.taken() == 2 + CHECK
        assert test.accuracy == test.accuracy
        assert passes.taken() == 0

    with torch.no_grad():
        changed(lambda: model[1].weight.neg_())
        changed(lambda: model[1].bias.add_(torch.tensor([1.0, 0.0, -1.0])))
        changed(lambda: model[0].running_mean.add_(1))
    changed(lambda: model[1].register_forward_hook(lambda module, args, out: -out))
    changed(lambda: setattr(model[1], "weight", nn.Parameter(torch.randn(3, 6))))


def test_what_a_block_does_to_the_network_is_noticed():
    model = a_model()
    test = Evaluator(model, a_loader())
    passes, before = Passes(model), test.accuracy
    with corrupt(model, Deletion(1.0)):
        assert test.accuracy == Evaluator(model, a_loader()).accuracy
    assert test.accuracy == before
    assert passes.taken() == 3 * 4 + 2 * CHECK


def test_neuron_state_left_behind_changes_nothing():
    model = a_model()
    test = Evaluator(model, a_loader())
    passes, before = Passes(model), test.accuracy
    model(some_events((6, 2, 2, 4, 4)))
    passes.taken()
    assert test.accuracy == before
    assert passes.taken() == 0


def test_replaced_parameters_are_found_again():
    model = a_model()
    test = Evaluator(model, a_loader())
    named = Evaluator(model, a_loader(), weights={"first": model.layers[1].weight})
    assert test.chips(Gaussian(0.1), chips=3).std > 0
    other = copy.deepcopy(model.state_dict())
    other["layers.1.weight"] = -other["layers.1.weight"]
    model.load_state_dict(other, assign=True)
    found = test.chips(Gaussian(0.1), chips=3)
    expected = simulate_chips(model, a_loader(), Gaussian(0.1), chips=3)
    assert torch.equal(found.accuracies, expected.accuracies)
    with pytest.raises(ValueError, match="weight 'first' is no longer a parameter of the network"):
        named.chips(Gaussian(0.1))


def test_another_network_on_the_same_images():
    loader = Counted(a_loader())
    test = Evaluator(a_model(), loader, loss=rate_cross_entropy)
    first = test.chips(Gaussian(0.1), chips=3)
    other = a_model()
    with torch.no_grad():
        other.layers[1].weight.neg_()
    assert test.on(other).accuracy == Evaluator(other, a_loader()).accuracy
    found = test.on(other).chips(Gaussian(0.1), chips=3)
    assert found.losses is not None
    assert not torch.equal(found.losses, first.losses)
    assert torch.equal(test.chips(Gaussian(0.1), chips=3).losses, first.losses)
    assert loader.passes == 1
    few = nn.Sequential(nn.Flatten(2), nn.Linear(32, 2))
    with pytest.raises(ValueError, match="the network has 2 classes"):
        _ = test.on(few).accuracy
    with pytest.raises(ValueError, match="weights is empty"):
        test.on(other, weights={})


def test_images_are_counted():
    loader = Counted(a_loader())
    test = Evaluator(a_model(), loader)
    assert test.images == 12
    assert test.chips(Gaussian(0.1), chips=2).images == 12
    assert loader.passes == 1


def test_print_says_what_it_holds():
    test = Evaluator(a_model(), a_loader())
    lines = str(test).splitlines()
    assert lines[0].startswith("Stepwise, images not yet read: 2 weights, 576 devices")
    assert [line.split() for line in lines[1:3]] == [
        ["layers.1.weight", "Linear", "16", "x", "32", "parameter"],
        ["layers.3.weight", "Linear", "4", "x", "16", "parameter"],
    ]
    _ = test.accuracy
    assert "12 images" in str(test)


def test_the_landscape_has_a_loss_of_its_own():
    test = Evaluator(a_model(), a_loader())
    assert test.landscape.sharpness(Gaussian(0.1), chips=2).report.losses is not None
    assert test.chips(Gaussian(0.0), chips=2).losses is None
    assert test.sweep(Gaussian, [0.0], chips=2)[0].losses is None


def test_impossible_questions():
    test = Evaluator(a_model(), a_loader(), stack=True)
    with pytest.raises(ValueError, match="stack=True cannot be combined with corruptions"):
        test.corrupt(Deletion, [0.1])
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        simulate_chips(a_model(), a_loader(), Gaussian(0.1), speed=2)
