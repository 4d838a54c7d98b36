"""What tracing sees of a network: tensors changed in place, constants, computed weights, hooks."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from spikewvat.conversion import QCFS, convert
from spikewvat.errors import UnsupportedModelError


class Layers(nn.Module):
    """Layers whose order the tests write themselves."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def shortcut_of_rectified(s, x):
    h = s.a(x)
    y = s.b(s.relu(h))
    return s.c(functional.relu(y + h))  # h is rectified by now


def alias_assigned(s, x):
    h = functional.relu(s.a(x))
    same = h
    same += s.b(h)
    return s.c(functional.relu(h))


def method_in_place(s, x):
    h = s.a(x)
    h.relu_()
    return s.c(h)


def functional_in_place(s, x):
    h = s.a(x)
    functional.relu(h, True)
    k = functional.relu(s.b(h))
    return s.c(functional.relu(h - 0.25) + k)


def scaled_before_it_is_read_again(s, x):
    h = s.a(x)
    g = functional.relu(h)
    h *= 2
    return s.c(functional.relu(h + g))


def identity_of_dropout(s, x):
    h = s.drop(s.relu(s.a(x)))
    k = s.b(h)
    h += 1
    return s.c(s.relu(k + h))


def pieces(s, x):
    one, two = functional.relu(s.a(x)).chunk(2, 1)
    return s.c(torch.cat([-one, 2 * two.clone()], dim=-1))


def constants(s, x):
    h = functional.relu(s.a(x) + 0.5)
    h = 1 - (2 * h - 0.25) / 4
    return s.c(h * 3)


def constant_to_images(s, x):
    return s.c(functional.relu(s.a((x - 0.4) / 0.3)))


SEEN = (
    shortcut_of_rectified,
    alias_assigned,
    method_in_place,
    functional_in_place,
    scaled_before_it_is_read_again,
    identity_of_dropout,
    pieces,
    constants,
    constant_to_images,
)


def view_changed(s, x):
    h = s.a(x)
    flat = h.flatten(1)
    flat += 1
    return s.c(functional.relu(h))


def slice_changed(s, x):
    h = functional.relu(s.a(x))
    half = h[:, :8]
    half *= 0
    return s.c(h)


def masked_by_dropout_in_place(s, x):
    h = s.a(x)
    k = s.drop(h)
    s.relu(k)
    return s.c(functional.relu(h + s.b(k)))


@pytest.mark.parametrize("forward", SEEN, ids=lambda f: f.__name__)
def test_what_the_network_computes_is_kept(forward):
    torch.manual_seed(0)
    ann, x = Layers(forward).double().train(), torch.rand(32, 6, dtype=torch.float64)
    snn = convert(ann, [x], time_steps=256)
    assert ann.training
    expected = ann.eval()(x.clone())
    torch.testing.assert_close(snn.analog(x), expected, atol=1e-10, rtol=0)
    assert float((snn(x) - expected).detach().abs().max()) < 0.02


def piece_changed(s, x):
    h = s.a(x)
    one, two = h.chunk(2, 1)
    one.relu_()
    return s.c(functional.relu(h) + torch.cat([two, one], 1))


def whole_changed_behind_its_pieces(s, x):
    h = s.a(x)
    one, two = h.chunk(2, 1)
    h.relu_()
    return s.c(torch.cat([two, one], 1))


@pytest.mark.parametrize(
    "forward",
    [
        *(view_changed, slice_changed, masked_by_dropout_in_place),
        *(piece_changed, whole_changed_behind_its_pieces),
    ],
)
def test_views_that_change_with_their_tensor_are_refused(forward):
    with pytest.raises(UnsupportedModelError, match="in place"):
        convert(Layers(forward), [torch.rand(8, 6)], time_steps=4)


COMPUTED = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.4),
    "pruned twice": lambda layer: prune.random_structured(
        prune.l1_unstructured(layer, "weight", amount=0.2), "weight", amount=0.25, dim=0
    ),
    "pruned bias": lambda layer: prune.random_unstructured(layer, "bias", amount=0.5),
    "weight norm hook": nn.utils.weight_norm,
    "spectral norm hook": nn.utils.spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_computed_weights_are_those_that_the_layer_uses(name, place):
    torch.manual_seed(0)
    ann = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
        nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    COMPUTED[name](ann[place])
    for _ in range(20):
        ann(torch.rand(64, 1, 6, 6) * 2)
    x = torch.rand(32, 1, 6, 6)
    before = copy.deepcopy({key: value.detach() for key, value in ann.state_dict().items()})
    snn = convert(ann, [x], time_steps=256)
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())
    expected = ann.eval()(x).detach()
    torch.testing.assert_close(snn.analog(x), expected, atol=1e-5, rtol=0)
    assert set(snn.state_dict()) == set(
        convert(plain_twin(), [x], time_steps=4).state_dict()
    )  # nothing of hooks or parametrizations is left


def plain_twin():
    ann = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5),
        nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    for _ in range(20):
        ann(torch.rand(64, 1, 6, 6))
    return ann


def test_a_hook_that_changes_values_is_noticed():
    ann = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    ann[0].register_forward_hook(lambda module, args, output: 1.5 * output)
    with pytest.raises(UnsupportedModelError, match="does not reproduce the model"):
        convert(ann, [torch.rand(8, 4)], time_steps=4)


@pytest.mark.parametrize(
    ("levels", "images", "step", "refused"),
    [(4, 1, 0.03, False), (4, 1, 3.0, True), (4, 16, 0.03, True), (None, 1, 0.03, True)],
)
def test_rounding_may_take_few_images_to_another_level(levels, images, step, refused):
    """A hook stands for it, as where a value lies on an edge depends on the machine."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        activation = nn.ReLU() if levels is None else QCFS(levels, threshold=1.0)
        ann = nn.Sequential(nn.Linear(4, 8), activation, nn.Linear(8, 3))
        x = torch.rand(32, 4)
    change = torch.zeros(32, 8)
    change[:images, 2] = step
    ann[1].register_forward_hook(
        lambda module, args, output: output + change if len(output) == 32 else None
    )
    expected = (
        pytest.raises(UnsupportedModelError, match="does not reproduce the model")
        if refused
        else nullcontext()
    )
    with expected:
        convert(ann, [x], time_steps=4)


def test_a_hook_that_only_looks_is_left_alone():
    ann, seen = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), []
    ann[0].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    convert(ann, [torch.rand(8, 4)], time_steps=4)
    assert seen == [(8, 8)]


def test_a_lazy_model_is_named():
    with pytest.raises(UnsupportedModelError, match="'0.weight' is lazy"):
        convert(nn.Sequential(nn.LazyLinear(4), nn.ReLU()), [torch.rand(2, 3)], time_steps=4)


def test_shifts_outweigh_unit_spikes():
    ann = nn.Sequential(
        nn.Linear(4, 8, bias=False), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3, bias=False)
    )
    for _ in range(5):
        ann(torch.rand(16, 4))
    with pytest.raises(ValueError, match="'2' has one, which would outweigh"):
        convert(ann, [torch.rand(8, 4)], time_steps=4, unit_spikes=True)


def one_is_added_to_what_is_read_again(s, x):
    h = functional.relu(s.a(x))
    k = functional.relu(s.b(h + 1))
    return s.c(h + k)


def bounded_in_place(s, x):
    h = s.a(x)
    functional.hardtanh(h, 0.0, 0.5, True)
    return s.c(functional.relu(s.b(h)) + h)


@pytest.mark.parametrize(
    "forward", [one_is_added_to_what_is_read_again, bounded_in_place], ids=lambda f: f.__name__
)
def test_what_is_changed_in_place_and_what_is_not(forward):
    test_what_the_network_computes_is_kept(forward)
