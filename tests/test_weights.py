"""The only writer of parameters restores them bit for bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spikewvat.weights import clamp_, perturbed, replaced


def _weights(dtype=torch.float32):
    return {
        "a": nn.Parameter(torch.randn(3, 4, dtype=dtype)),
        "b": nn.Parameter(torch.randn(5, dtype=dtype)),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_restores_bit_for_bit_after_any_exception(dtype, error):
    weights = _weights(dtype)
    before = {name: w.detach().clone() for name, w in weights.items()}
    delta = {name: torch.randn_like(w) * 100 for name, w in weights.items()}
    with pytest.raises(error), perturbed(weights, delta):
        assert not torch.equal(weights["a"], before["a"])
        raise error
    for name, value in before.items():
        assert torch.equal(weights[name], value)


def test_two_thousand_rounds_in_bf16_leave_no_drift():
    weights = _weights(torch.bfloat16)
    before = {name: w.detach().clone() for name, w in weights.items()}
    for _ in range(2000):
        with perturbed(weights, {name: torch.randn_like(w) for name, w in weights.items()}):
            pass
    assert all(torch.equal(weights[name], value) for name, value in before.items())


def test_non_finite_displacement_is_undone():
    weights = _weights()
    before = weights["a"].detach().clone()
    delta = {"a": torch.full((3, 4), float("nan")), "b": torch.full((5,), float("inf"))}
    with perturbed(weights, delta):
        assert weights["a"].isnan().all()
    assert torch.equal(weights["a"], before)


def test_a_displacement_that_fails_half_way_is_undone():
    weights = _weights()
    before = {name: w.detach().clone() for name, w in weights.items()}

    def half(live):
        live["a"].add_(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), perturbed(weights, half):
        pytest.fail("the body must not run")
    for name, weight in weights.items():
        assert torch.equal(weight, before[name])


def test_aliases_see_the_displacement():
    weight = nn.Parameter(torch.randn(4, 3))
    alias = weight.detach().t()
    with perturbed({"w": weight}, {"w": torch.ones(4, 3)}):
        assert torch.equal(alias.t(), weight)
    assert torch.equal(alias.t(), weight)


def test_non_contiguous_weights():
    storage = torch.randn(4, 6)
    weight = storage.t()
    before = storage.clone()
    with perturbed({"w": weight}, {"w": torch.ones(6, 4)}):
        assert torch.equal(storage, before + 1)
    assert torch.equal(storage, before)


def test_gradient_is_that_of_the_displaced_point():
    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    with perturbed({"w": weight}, {"w": torch.tensor([0.1, -0.2], dtype=torch.float64)}):
        (0.5 * (torch.tensor([3.0, 1.0]) * weight**2).sum()).backward()
    torch.testing.assert_close(weight.grad, torch.tensor([3.3, 1.8], dtype=torch.float64))


def test_backward_after_the_weights_came_back_is_refused():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    with perturbed({"w": weight}, {"w": torch.ones(2)}):
        loss = (weight**2).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_autocast_does_not_keep_the_weights_of_an_earlier_pass():
    linear = nn.Linear(4, 4, bias=False)
    x = torch.ones(1, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        clean = linear(x)
        with perturbed({"w": linear.weight}, {"w": torch.ones(4, 4)}):
            displaced = linear(x)
        again = linear(x)
    torch.testing.assert_close(displaced, clean + 4, atol=0.1, rtol=0)
    assert torch.equal(again, clean)


def test_replaced_holds_the_exact_values():
    weights = _weights(torch.bfloat16)
    before = {name: w.detach().clone() for name, w in weights.items()}
    values = {name: torch.randn_like(w) for name, w in weights.items()}
    with replaced(weights, values):
        assert all(torch.equal(weights[name], value) for name, value in values.items())
    assert all(torch.equal(weights[name], value) for name, value in before.items())


def test_missing_entry_names_the_weight_and_the_next_move():
    weights = _weights()
    with pytest.raises(
        ValueError, match=r"perturbation has no entry for weight 'b' \(has: 'a'\). Build it"
    ):
        perturbed(weights, {"a": torch.zeros(3, 4)}).__enter__()


def test_unknown_entry_and_wrong_shape():
    weights = _weights()
    delta = {"a": torch.zeros(3, 4), "b": torch.zeros(5), "c": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"perturbation has an entry 'c' that is no weight"):
        perturbed(weights, delta).__enter__()
    with pytest.raises(ValueError, match=r"'b' has shape \(4,\), expected \(5,\)"):
        perturbed(weights, {"a": torch.zeros(3, 4), "b": torch.zeros(4)}).__enter__()


def test_one_tensor_under_two_names_is_refused():
    weight = nn.Parameter(torch.zeros(2))
    both = {"a": weight, "b": weight}
    with pytest.raises(ValueError, match="'a' and 'b' are the same tensor"):
        perturbed(both, {"a": torch.zeros(2), "b": torch.zeros(2)}).__enter__()


def test_clamping_in_place():
    weights = _weights()
    expected = {name: w.detach().clamp(-0.5, 0.5) for name, w in weights.items()}
    clamp_(weights, 0.5)
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name])


def test_clamping_is_seen_under_autocast():
    linear = nn.Linear(4, 4, bias=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        linear(torch.ones(1, 4))
        clamp_({"w": linear.weight}, 1e-3)
        assert linear(torch.ones(1, 4)).abs().max() < 1e-2


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_limits(limit):
    with pytest.raises(ValueError, match="limit must be finite and above 0"):
        clamp_(_weights(), limit)
