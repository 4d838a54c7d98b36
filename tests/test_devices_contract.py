"""One contract for every device model; a new device adds a row to ``cases.DEVICES``."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch
from cases import DEVICES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spread import spread

from spikewvat.devices import DeviceModel, Fixed, Gaussian, Lognormal, Pipeline, Uniform


def devices_that(promise):
    """Run a test over the rows for which ``promise(case)`` holds."""
    rows = [case for case in DEVICES if promise(case)]
    return pytest.mark.parametrize("case", rows, ids=str)


every_device = devices_that(lambda case: True)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}
device_and_dtype = spread("case, dtype", DEVICES, list(TOLERANCE), each=2)
few = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def example(dtype=torch.float64, seed=5):
    """Weights of every shape that occurs: a matrix, a kernel bank, a vector, a scalar, nothing."""
    g = seeded(seed)
    shapes = {"fc": (30, 40), "conv": (6, 4, 3, 3), "v": (50,), "one": (), "none": (0, 7)}
    weights = {
        name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()
    }
    return {name: (0.2 * w + 0.05).to(dtype) for name, w in weights.items()}


@device_and_dtype
def test_keys_shapes_dtypes_are_kept_and_inputs_untouched(case, dtype):
    weights = example(dtype)
    weights["fc"].requires_grad_()
    before = {name: w.detach().clone() for name, w in weights.items()}
    for draw in (case.device.program, case.device.errors):
        result = draw(weights, generator=seeded(0))
        assert list(result) == list(weights)
        for name, weight in weights.items():
            assert result[name].shape == weight.shape
            assert result[name].dtype == dtype
            assert result[name].isfinite().all()
            assert not result[name].requires_grad
            if weight.numel():
                assert result[name].data_ptr() != weight.data_ptr()
            assert torch.equal(weight, before[name])
            result[name].add_(1)  # the caller may write to what it gets
            assert torch.equal(weight, before[name])


@device_and_dtype
def test_a_chip_is_its_seed(case, dtype):
    weights = example(dtype)
    chip = case.device.program(weights, generator=seeded(1))
    same = case.device.program(weights, generator=seeded(1))
    other = case.device.program(weights, generator=seeded(2))
    copied = pickle.loads(pickle.dumps(copy.deepcopy(case.device)))
    assert copied == case.device
    again = copied.program(weights, generator=seeded(1))
    for name in weights:
        assert torch.equal(chip[name], same[name])
        assert torch.equal(chip[name], again[name])
    assert torch.equal(chip["fc"], other["fc"]) is not case.random


@every_device
def test_without_a_generator_the_global_one_is_used(case):
    weights = example()
    torch.manual_seed(3)
    chip = case.device.program(weights)
    torch.manual_seed(3)
    same = case.device.program(weights)
    assert torch.equal(chip["fc"], same["fc"])


@device_and_dtype
def test_errors_are_what_the_chip_differs_by(case, dtype):
    weights = example(dtype)
    chip = case.device.program(weights, generator=seeded(4))
    delta = case.device.errors(weights, generator=seeded(4))
    for name, weight in weights.items():
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        torch.testing.assert_close(weight + delta[name], chip[name], **close)


@device_and_dtype
def test_a_plan_adds_the_errors_that_the_weights_had(case, dtype):
    weights = example(dtype)
    generator, device = seeded(4), case.device
    if isinstance(device, Gaussian):
        device = replace(device, drawn=True)
    delta = device.errors(weights, generator=generator)
    rest = generator.get_state()
    generator.manual_seed(4)
    displace = device.plan(weights, scale=0.25, generator=generator)
    found = {name: torch.ones_like(weight) for name, weight in weights.items()}
    for weight in weights.values():
        weight.mul_(3).add_(1)  # by now others may have displaced them
    with torch.no_grad():
        displace(found)
    assert torch.equal(generator.get_state(), rest)
    for name in weights:
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        torch.testing.assert_close(found[name], 1 + 0.25 * delta[name], **close)


@every_device
def test_layout_does_not_matter(case):
    plain = example()
    strided = {
        "fc": plain["fc"].T.contiguous().T,
        "conv": plain["conv"].contiguous(memory_format=torch.channels_last),
        "v": torch.stack([plain["v"], plain["v"]], 1)[:, 0],
        "one": plain["one"],
        "none": plain["none"],
    }
    assert not any(strided[name].is_contiguous() for name in ("fc", "conv", "v"))
    expected = case.device.program(plain, generator=seeded(6))
    chip = case.device.program(strided, generator=seeded(6))
    for name in plain:
        torch.testing.assert_close(chip[name], expected[name], rtol=1e-12, atol=1e-12)


@devices_that(lambda case: case.relative)
@few
@given(
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32),
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=4),
)
def test_scaling_the_weights_scales_the_error(case, scale, seed, shape):
    weights = {"w": torch.randn(shape, dtype=torch.float64, generator=seeded(seed))}
    scale = 2.0 ** round(math.log2(scale))  # exact, so that no rounding flips a step or a bin
    scaled = {"w": scale * weights["w"]}
    delta = case.device.errors(weights, generator=seeded(seed))["w"]
    torch.testing.assert_close(
        case.device.errors(scaled, generator=seeded(seed))["w"],
        scale * delta,
        rtol=1e-9,
        atol=1e-12 * scale,
    )


@devices_that(lambda case: case.mean_zero)
def test_errors_average_to_zero(case):
    weights = {"w": torch.randn(200, 500, dtype=torch.float64, generator=seeded(8))}
    delta = case.device.errors(weights, generator=seeded(9))["w"]
    standard_error = delta.std() / math.sqrt(delta.numel())
    assert abs(delta.mean()) < 4 * standard_error
    same = torch.full_like(weights["w"], 0.3)
    same[0, 0] = 1.0  # also at one and the same weight
    at_one = case.device.errors({"w": same}, generator=seeded(10))["w"].flatten()[1:]
    assert abs(at_one.mean()) < 4 * at_one.std() / math.sqrt(at_one.numel())


@spread("case, dtype", [case for case in DEVICES if case.std is not None], list(TOLERANCE))
def test_standard_deviation_is_as_stated(case, dtype):
    weights = {"w": torch.randn(200, 500, generator=seeded(11)).to(dtype)}
    delta = case.device.errors(weights, generator=seeded(12))["w"].double()
    ratio = delta / case.device.range.size(weights["w"]).double() / case.std
    assert abs(ratio.std() - 1) < 4 / math.sqrt(2 * ratio.numel())


@spread("case, dtype", [case for case in DEVICES if case.closed_form], list(TOLERANCE))
def test_expected_norms_are_those_of_draws(case, dtype):
    weights = example(dtype)
    norms = case.device.expected_norms(weights)
    squares = {name: [] for name in weights}
    for seed in range(60):
        delta = case.device.errors(weights, generator=seeded(seed))
        for name in weights:
            squares[name].append(delta[name].double().square().sum())
    assert list(norms) == list(weights)
    for name in weights:
        assert norms[name].shape == ()
        assert norms[name].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        drawn = torch.stack(squares[name])
        error = 4 * drawn.std() / math.sqrt(len(drawn)) + 2 * TOLERANCE[dtype] * drawn.mean()
        assert abs(norms[name].double() ** 2 - drawn.mean()) <= error


@every_device
def test_moments_are_those_of_many_chips(case):
    weights = {"w": torch.linspace(-0.5, 0.8, 30, dtype=torch.float64).reshape(5, 6)}
    weights["w"].requires_grad_()
    moments = case.device.moments(weights)
    if moments is None:
        return
    mean, variance = moments["w"]
    assert mean.shape == variance.shape == weights["w"].shape
    (mean.sum() + variance.sum()).backward()
    assert weights["w"].grad.isfinite().all()
    generator = seeded(14)
    chips = torch.stack(
        [case.device.program(weights, generator=generator)["w"] for _ in range(3000)]
    )
    error = chips.std(0) / math.sqrt(len(chips))
    assert bool(((chips.mean(0) - mean).abs() <= 5 * error + 1e-9).all())
    kurtosis = ((chips - chips.mean(0)) / chips.std(0)).pow(4).mean(0)
    tolerance = 5 * chips.var(0) * (kurtosis / len(chips)).sqrt()
    assert bool(((chips.var(0) - variance).abs() <= tolerance + 1e-9).all())


@every_device
def test_repr_says_what_it_is(case):
    first = case.device.stages[0] if isinstance(case.device, Pipeline) else case.device
    assert repr(case.device).startswith(type(first).__name__ + "(")
    assert len(repr(case.device)) < 300


@spread("case, partner", DEVICES, [Gaussian(0.02), Lognormal(0.1)])
def test_composition_is_one_after_the_other(case, partner):
    weights = example()
    for first, second in ((case.device, partner), (partner, case.device)):
        g = seeded(13)
        expected = second.program(first.program(weights, generator=g), generator=g)
        chip = (first >> second).program(weights, generator=seeded(13))
        for name in weights:
            assert torch.equal(chip[name], expected[name])


def test_pipelines_are_flat_and_read_as_written():
    a, b, c = Gaussian(0.1), Uniform(0.2), Lognormal(0.3)
    assert ((a >> b) >> c) == (a >> (b >> c)) == Pipeline((a, b, c))
    assert repr(a >> c) == f"{a!r} >> {c!r}"


def test_only_devices_compose():
    with pytest.raises(TypeError, match="unsupported operand"):
        Gaussian(0.1) >> 0.1
    with pytest.raises(ValueError, match=r"stages must be at least one device model, got \(\)"):
        Pipeline(())
    with pytest.raises(ValueError, match="at least one device model, got .*0.1"):
        Pipeline((0.1,))


def test_a_user_defined_device_needs_program_only():
    class Halved(DeviceModel):
        def program(self, weights, *, generator=None):
            return {name: weight / 2 for name, weight in weights.items()}

    weights = {"w": torch.tensor([2.0, -4.0])}
    assert (Halved() >> Halved()).program(weights)["w"].tolist() == [0.5, -1.0]
    assert Halved().errors(weights)["w"].tolist() == [-1.0, 2.0]
    assert Halved().expected_norms(weights) is None
    Halved().plan(weights, scale=0.5)(weights)
    assert weights["w"].tolist() == [1.5, -3.0]


def test_what_a_subclass_draws_holds_on_chips_and_in_training():
    class Sevens(Gaussian):
        def standard_noise(self, shape, *, dtype, generator=None):
            return torch.full(shape, 7.0, dtype=dtype)

    device, weight = Sevens(1.0, Fixed(0.0, 1.0)), torch.ones(3)
    assert device.program({"w": weight})["w"].tolist() == [8.0] * 3
    device.plan({"w": weight}, scale=2.0)({"w": weight})
    assert weight.tolist() == [15.0] * 3


@pytest.mark.parametrize("method", ["program", "errors", "plan"])
def test_what_is_derived_from_the_noise_cannot_be_said_otherwise(method):
    with pytest.raises(TypeError, match=f"overrides '{method}', which Additive.* derives from"):
        type("Shifted", (Gaussian,), {method: lambda self, weights: weights})
