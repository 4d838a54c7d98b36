"""The cheapest split of a budget between chips and images, and chips on images of their own."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_statistics import interval
from test_robustness_chips import IMAGES, Noise, StubAdapter, a_loader, a_model
from torch import nn

from spikewvat.robustness import (
    ChipReport,
    Evaluator,
    best_split,
    chips_needed,
    hierarchical,
    mean_interval,
    simulate_chips,
)
from spikewvat.robustness.images import image_axis
from spikewvat.robustness.split import components
from spikewvat.serialisation import plain


def report(values, images, sampled_from=None):
    accuracies = torch.tensor(values, dtype=torch.float64)
    return ChipReport(
        "d", 0.1, accuracies, tuple(range(len(values))), images, sampled_from=sampled_from
    )


def run(loader=None, **keywords):
    keywords = {"chips": 6, "seed": 1} | keywords
    return simulate_chips(
        a_model(), loader or a_loader(), Noise(0.3), adapter=StubAdapter(), **keywords
    )


def literal_cost(pilot, cost, images):
    """Cost of one unit of variance: what a design of so many images for each chip takes."""
    between, within = components(pilot)
    n = pilot.sampled_from or pilot.images
    return (between + within * (1 / images - 1 / n)) * (cost + images)


@given(
    spread=st.floats(0.001, 0.1),
    mean=st.floats(0.3, 0.95),
    cost=st.floats(0.1, 500),
    total=st.integers(20, 3000),
)
@settings(max_examples=60, deadline=None)
def test_no_other_number_of_images_is_cheaper(spread, mean, cost, total):
    spread = min(spread, 0.9 * (1 - mean), 0.9 * mean)
    pilot = report([mean - spread, mean + spread, mean], total)
    found = best_split(pilot, 0.01, chip_cost=cost)
    best = min(literal_cost(pilot, cost, m) for m in range(1, total + 1))
    assert literal_cost(pilot, cost, found.images) <= 1.03 * best  # to the whole number
    assert found.cost == found.chips * (cost + found.images)
    between, within = components(pilot)
    std = math.sqrt(between + within * (1 / found.images - 1 / total))
    assert found.chips == chips_needed(std, 0.01)


def test_a_worked_example():
    # tau^2 = 1e-4, S^2 = mean(y (1 - y)) 10000 / 9999, m = S sqrt(50 / (tau^2 - S^2 / 10000))
    pilot = report([0.94, 0.95, 0.96], 10_000)
    within = (0.94 * 0.06 + 0.95 * 0.05 + 0.96 * 0.04) / 3 * 10_000 / 9_999
    assert components(pilot) == pytest.approx((1e-4, within))
    assert best_split(pilot, 0.01, chip_cost=50).images == round(
        math.sqrt(within * 50 / (1e-4 - within / 10_000))
    )


def test_chips_that_differ_less_than_images_explain_take_all_images():
    pilot = report([0.95, 0.9501], 100)
    assert best_split(pilot, 0.01, chip_cost=3).images == 100


def test_components_of_a_pilot_on_parts_are_those_of_the_whole():
    generator = torch.Generator().manual_seed(0)
    chance = 0.9 + 0.03 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    right = (torch.rand(4000, 200, generator=generator, dtype=torch.float64) < chance).double()
    order = torch.rand(4000, 200, generator=generator).argsort(1)[:, :20]
    part = report(right.gather(1, order).mean(1).tolist(), 20, sampled_from=200)
    whole = components(report(right.mean(1).tolist(), 200))
    assert components(part)[1] == pytest.approx(whole[1], rel=0.02)
    assert components(part)[0] == pytest.approx(whole[0], rel=0.1)
    # The components say what smaller parts would vary by.
    tau, within = whole
    assert part.std**2 == pytest.approx(tau + within * (1 / 20 - 1 / 200), rel=0.05)


def test_the_interval_covers_the_mean_over_all_chips_and_images():
    """New chips, and new images for each of them: 95 of 100 intervals hold the true mean."""
    generator = torch.Generator().manual_seed(3)
    chance = 0.85 + 0.05 * torch.randn(400, 1, generator=generator, dtype=torch.float64)
    right = (torch.rand(400, 300, generator=generator, dtype=torch.float64) < chance).double()
    truth, held = float(right.mean()), 0
    for _ in range(600):
        chips = torch.randint(400, (15,), generator=generator)
        values = [
            float(right[chip, torch.randperm(300, generator=generator)[:20]].mean())
            for chip in chips
        ]
        low, high = mean_interval(values)
        held += low <= truth <= high
    assert 0.925 < held / 600 < 0.975


def one_by_one(chosen_of):
    """Every chip on its own images, image by image."""
    found = []
    model = a_model()
    x = torch.cat([x for x, _ in a_loader()], 1)
    y = torch.cat([y for _, y in a_loader()])
    for seed, images in chosen_of:
        generator = torch.Generator().manual_seed(seed)
        weights = {
            name: weight.detach().clone()
            for name, weight in StubAdapter().synaptic_weights(model).items()
        }
        chip = Noise(0.3).program(weights, generator=generator)
        order = torch.randperm(IMAGES, generator=generator)[:images]
        own = a_model().eval()
        own.load_state_dict({**own.state_dict(), **chip})
        right = []
        for i in order.tolist():
            own.reset()
            with torch.no_grad():
                right.append(float(own(x[:, i : i + 1]).sum(0).argmax() == y[i]))
        found.append(right)
    return found


@pytest.mark.parametrize("images", [1, 9, 24])
def test_every_chip_sees_images_of_its_own(images):
    found = run(images_per_chip=images)
    outcomes = one_by_one([(seed, images) for seed in found.seeds])
    assert found.accuracies.tolist() == pytest.approx([sum(o) / images for o in outcomes])
    assert (found.images, found.sampled_from) == (images, 24)
    # The interval is that of chips with images inside.
    nested = hierarchical(outcomes, same_chips=False)
    expected = interval(nested.mean, nested.std_error, nested.degrees)
    assert tuple(mean_interval(found.accuracies)) == pytest.approx(expected)
    if images == 24:
        assert found.accuracies.tolist() == run().accuracies.tolist()


def test_parts_do_not_depend_on_batches_or_the_number_of_chips():
    found = run(images_per_chip=9)
    assert run(images_per_chip=9, loader=a_loader(5)).accuracies.tolist() == (
        found.accuracies.tolist()
    )
    assert run(images_per_chip=9, chips=3).accuracies.tolist() == found.accuracies[:3].tolist()


def test_recordings_of_unequal_length_are_not_joined():
    loader = [(x[: 7 - i], y) for i, (x, y) in enumerate(a_loader())]
    assert run(images_per_chip=24, loader=loader).accuracies.tolist() == (
        run(loader=loader).accuracies.tolist()
    )


def test_images_without_time_and_sparse_ones():
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    loader = [(torch.rand(10, 6), torch.arange(10) % 4), (torch.rand(4, 6), torch.arange(4))]
    keywords = {"chips": 4, "images_per_chip": 14}
    found = simulate_chips(model, loader, Noise(0.5), **keywords)
    all_of_them = simulate_chips(model, loader, Noise(0.5), chips=4)
    assert found.accuracies.tolist() == all_of_them.accuracies.tolist()
    assert image_axis([(loader[0][0].to_sparse(), loader[0][1])]) == 0


def test_a_sweep_and_its_rows(through_a_file):
    test = Evaluator(a_model(), a_loader(), adapter=StubAdapter())
    curve = test.sweep(Noise, [0.0, 0.3], chips=6, images_per_chip=9, seed=1)
    assert curve.at(0.3).accuracies.tolist() == run(images_per_chip=9).accuracies.tolist()
    assert curve[0].std > 0  # without variation, the images still vary
    again = through_a_file(curve[1])
    assert plain(again) == plain(curve[1])
    assert again.sampled_from == 24
    assert str(again).endswith("6 chips x 9 of 24 images")
    with pytest.raises(ValueError, match="has classified 9 of 24 images, which does not show"):
        again.yield_at(0.9)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"images_per_chip": 0}, "images_per_chip must be between 1 and 24.*got 0"),
        ({"images_per_chip": 25}, "between 1 and 24, the images of the test set, got 25"),
        ({"images_per_chip": 3, "target": 0.9}, "target is 0.9 and images_per_chip 3"),
        (
            {"images_per_chip": 3, "stack": True},
            "stack=True cannot be combined with images_per_chip",
        ),
        ({"images_per_chip": 3, "cache_bytes": 0}, "24 images do not fit into memory"),
        ({"images_per_chip": 3, "loader": [(torch.rand(7, 7, 6), torch.zeros(7).long())]}, "axis"),
        ({"images_per_chip": 3, "loader": [(torch.rand(7, 7, 6), torch.full((7,), 9))]}, "axis"),
    ],
)
def test_impossible_parts(keywords, message):
    with pytest.raises(ValueError, match=message):
        run(**keywords)


@pytest.mark.parametrize(
    ("pilot", "keywords", "message"),
    [
        (report([0.9], 10), {}, "pilot run of 1 chips x 10 images has no components"),
        (report([0.9, 0.8], 1), {}, "pilot run of 2 chips x 1 images"),
        (report([0.9, 0.8], 10), {"chip_cost": 0}, "chip_cost must be a finite number above 0"),
        (report([0.9, 0.8], 10), {"width": -1}, "width must be a finite number above 0"),
    ],
)
def test_impossible_splits(pilot, keywords, message):
    keywords = {"width": 0.01, "chip_cost": 5} | keywords
    with pytest.raises(ValueError, match=message):
        best_split(pilot, **keywords)
