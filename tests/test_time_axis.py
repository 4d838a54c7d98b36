"""Who owns the time axis: each network is scored over all steps, or there is one clear error."""

from __future__ import annotations

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import encoding, layer, neuron
from torch import Tensor, nn

from spikewvat.devices import Gaussian, Ideal
from spikewvat.robustness import Evaluator, class_scores, population_scores, simulate_chips
from spikewvat.robustness.corruptions import Deletion, ReadNoise, ThresholdMismatch

STEPS, IMAGES, CLASSES = 7, 40, 5


def leaky(**options):
    return snn.Leaky(beta=0.9, threshold=0.4, init_hidden=True, **options)


def dense_snntorch():
    """A network as in snnTorch's tutorials 5 and 6: (spikes, potentials) of one step."""
    return nn.Sequential(nn.Linear(6, 12), leaky(), nn.Linear(12, CLASSES), leaky(output=True))


def conv_snntorch():
    """A network as in snnTorch's tutorial 7: Linear fails on inputs with a time axis."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), leaky(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES), leaky()
    )


def dense_jelly():
    """A network as in SpikingJelly's first example, single-step."""
    return nn.Sequential(
        layer.Linear(6, 12),
        neuron.LIFNode(v_threshold=0.05),
        layer.Linear(12, CLASSES),
        neuron.LIFNode(v_threshold=0.05),
    )


class Cell(nn.Module):
    """Somebody's own neurons."""

    def __init__(self):
        super().__init__()
        self.v = 0.0

    def reset(self):
        self.v = 0.0

    def forward(self, x):
        self.v = 0.8 * self.v + x
        spikes = (self.v > 0.3).float()
        self.v = self.v - 0.3 * spikes
        return spikes


class Holder(nn.Module):
    """State in the network itself, which computes a step."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.hidden, self.out = (
            nn.Linear(6, 12),
            nn.Linear(12, 5),
            0.0,
            0.0,
        )

    def reset(self):
        self.hidden = self.out = 0.0

    def forward(self, x):
        self.hidden = 0.8 * self.hidden + self.first(x)
        self.out = 0.8 * self.out + self.second((self.hidden > 0.3).float())
        return (self.out > 0.2).float()


class Shared(Holder):
    """One activation for all layers."""

    def __init__(self):
        super().__init__()
        self.spike = nn.Hardtanh(0, 1)

    def forward(self, x):
        self.hidden = 0.8 * self.hidden + self.first(x)
        self.out = 0.8 * self.out + self.second(self.spike(self.hidden))
        return self.spike(self.out)


class Looping(nn.Module):
    """Runs a network of single steps over time itself; resets are left to others."""

    def __init__(self, step, steps=None, *, summed=False):
        super().__init__()
        self.step, self.steps, self.summed = step, steps, summed

    def forward(self, x):
        inputs = [x] * self.steps if self.steps else x
        outputs = [self.step(one) for one in inputs]
        if isinstance(outputs[0], tuple):
            outputs = [spikes for spikes, *_ in outputs]
        return sum(outputs) if self.summed else torch.stack(outputs)


SINGLE = {
    "snntorch": dense_snntorch,
    "spikingjelly": dense_jelly,
    "own neurons": lambda: nn.Sequential(nn.Linear(6, 12), Cell(), nn.Linear(12, 5), Cell()),
    "own network": Holder,
    "one activation": Shared,
}


def dynamic(*shape: int, steps: int = STEPS, images: int = IMAGES):
    spikes = (torch.rand(steps, images, *shape) < 0.4).float()
    return spikes, torch.arange(images) % CLASSES


def still(*shape: int):
    return torch.rand(IMAGES, *shape), torch.arange(IMAGES) % CLASSES


def split(inputs: Tensor, labels: Tensor, axis: int):
    """Return a loader whose last batch is smaller."""
    return list(zip(inputs.split(17, axis), labels.split(17), strict=True))


def asked(model: nn.Module, loader, **options):
    """Return what a network gives without variation, on chips, and under corruption."""
    test = Evaluator(model, loader, **options)
    chips = test.chips(Gaussian(0.2), chips=3).accuracies.tolist()
    lines = test.landscape.lines(Gaussian(0.1), lines=1, points=3)
    return [test.accuracy, *chips, *lines.losses.flatten().tolist()]


@pytest.mark.parametrize("make", SINGLE.values(), ids=SINGLE)
def test_single_steps_of_spikes_run_over_time(make):
    model, (inputs, labels) = make(), dynamic(6)
    loader = split(inputs, labels, 1)
    found = asked(model, loader)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    assert found == asked(Looping(model), loader, weights=weights)
    assert found == asked(model, loader, time="steps")
    assert found != asked(model, loader, time="network")
    assert "forward" not in vars(model)


def test_a_network_that_takes_no_time_axis_runs_over_time():
    model, (inputs, labels) = conv_snntorch(), dynamic(2, 6, 6)
    inputs[0] = 0  # the first step moves nothing
    loader = split(inputs, labels, 1)
    assert asked(model, loader) == asked(Looping(model), loader)


@pytest.mark.parametrize("make", SINGLE.values(), ids=SINGLE)
def test_single_steps_of_still_images_ask_for_their_number(make):
    model, loader = make(), split(*still(6), 0)
    with pytest.raises(ValueError, match=r"one time step per call: layer .* Pass time=10"):
        Evaluator(model, loader).chips(Gaussian(0.1))
    assert (
        Evaluator(model, loader, time=9).accuracy == Evaluator(Looping(model, 9), loader).accuracy
    )
    once = Evaluator(model, loader, time="network").accuracy
    assert once == Evaluator(model, loader, time=1).accuracy


def test_silent_outputs_of_the_first_step_are_no_sign_of_a_network_without_time():
    model = nn.Sequential(
        nn.Linear(6, 12), leaky(), nn.Linear(12, 12), leaky(), nn.Linear(12, 5), leaky()
    )
    inputs, labels = still(6)
    with torch.no_grad():
        for part in (model[0], model[2], model[4]):
            part.weight.abs_().mul_(0.3)
            part.bias.zero_()
        assert model(inputs).sum() == 0
    with pytest.raises(ValueError, match="one time step per call: layer '1'"):
        _ = Evaluator(model, [(inputs, labels)]).accuracy


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("make", SINGLE.values(), ids=SINGLE)
def test_networks_that_own_their_loop_are_called_once(make, summed):
    for steps, loader in ((9, split(*still(6), 0)), (None, split(*dynamic(6), 1))):
        model = Looping(make(), steps, summed=summed)
        calls = []
        model.register_forward_hook(lambda *_: calls.append(1))
        found = Evaluator(model, loader).accuracy
        assert len(calls) == 2 + 3
        assert found == Evaluator(model, loader, time="network").accuracy


def test_multi_step_neurons_own_their_loop():
    model = nn.Sequential(
        layer.Linear(6, 12, step_mode="m"),
        neuron.LIFNode(v_threshold=0.3, step_mode="m", store_v_seq=True),
        layer.Linear(12, CLASSES, step_mode="m"),
        neuron.IFNode(v_threshold=0.3, step_mode="m"),
    )
    loader = split(*dynamic(6), 1)
    assert Evaluator(model, loader).accuracy == Evaluator(model, loader, time="network").accuracy


def test_a_network_that_encodes_at_random_is_a_step_too():
    model, loader = nn.Sequential(encoding.PoissonEncoder(), dense_jelly()), split(*still(6), 0)
    test = Evaluator(model, loader, time=20)
    report = test.chips(Gaussian(0.1), chips=3)
    assert torch.equal(report.accuracies, test.chips(Gaussian(0.1), chips=3).accuracies)


def test_corruptions_and_activity_see_all_steps():
    model, (inputs, labels) = dense_snntorch(), dynamic(6)
    loader = split(inputs, labels, 1)
    for corruption in (Deletion, ThresholdMismatch):
        one, other = (
            Evaluator(net, loader).corrupt(corruption, [0.0, 0.3], chips=2)
            for net in (model, Looping(model))
        )
        assert one[0].accuracies.tolist() == other[0].accuracies.tolist()
        assert one.activity.spikes == other.activity.spikes > 0
        assert one.activity.operations == other.activity.operations
    assert torch.equal(one[1].accuracies, other[1].accuracies) or corruption is ThresholdMismatch


def test_activity_is_counted_for_images_wherever_they_are():
    """Spikes [T, B, 1, 6], as sound comes, have four axes like still images [B, C, H, W]."""

    class Sound(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense_snntorch()

        def forward(self, x):
            return self.net(x.flatten(1))

    model, (inputs, labels) = Sound(), dynamic(6)
    sound, plain = (
        Evaluator(net, split(x, labels, 1)).corrupt(ReadNoise, [0.0, 0.3], chips=2)
        for net, x in ((model, inputs.unsqueeze(2)), (model.net, inputs))
    )
    assert sound.activity.spikes == plain.activity.spikes > 0
    assert sound.activity.operations == plain.activity.operations > 0


def test_stacked_chips_run_over_time():
    model, loader = nn.Sequential(nn.Linear(6, 5), Cell()), split(*dynamic(6), 1)
    one, many = (
        simulate_chips(model, loader, Gaussian(0.2), chips=4, stack=stack)
        for stack in (False, True)
    )
    assert torch.equal(one.accuracies, many.accuracies)


def test_as_many_steps_as_images():
    single, own = dense_snntorch(), Looping(dense_snntorch())
    square, labels = dynamic(6, steps=8, images=8)
    with pytest.raises(ValueError, match=r"\(8, 8, 6\) do not show how many steps"):
        _ = Evaluator(single, [(square, labels)]).accuracy
    assert Evaluator(single, [(square, labels)], time="steps").accuracy == (
        Evaluator(Looping(single), [(square, labels)]).accuracy
    )
    # What follows the first step tells that time comes first.
    assert Evaluator(own, [(square, labels)]).accuracy == (
        Evaluator(own, [(square, labels)], time="network").accuracy
    )
    with pytest.raises(ValueError, match="with as many steps as images, so the time axis"):
        _ = Evaluator(nn.Linear(6, 5), [(square, labels)]).accuracy


class Batched(nn.Module):
    """Images first, in and out."""

    def __init__(self, *, swapped=False):
        super().__init__()
        self.own, self.swapped = Looping(dense_jelly()), swapped

    def forward(self, x):
        return self.own(x if self.swapped else x.transpose(0, 1)).transpose(0, 1)


@pytest.mark.parametrize("steps", [7, 8])
@pytest.mark.parametrize("swapped", [False, True])
def test_outputs_with_images_first_are_asked_for(steps, swapped):
    model, (inputs, labels) = Batched(swapped=swapped), dynamic(6, steps=steps, images=8)
    inputs = inputs if swapped else inputs.transpose(0, 1)
    expected = Evaluator(model, [(inputs, labels)], scores=lambda output: output.sum(1)).accuracy
    assert expected == float((model(inputs).sum(1).argmax(1) == labels).float().mean())
    with pytest.raises(ValueError, match=r"scores=lambda output: output.sum\(1\)"):
        _ = Evaluator(model, [(inputs, labels)]).accuracy


def test_outputs_of_still_images_with_as_many_steps_as_images():
    inputs, labels = torch.rand(9, 6), torch.arange(9) % CLASSES
    first = Looping(dense_jelly(), 9)
    assert Evaluator(first, [(inputs, labels)]).accuracy == (
        Evaluator(first, [(inputs, labels)], time="network").accuracy
    )

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = first

        def forward(self, x):
            return self.own(x).transpose(0, 1)

    with pytest.raises(
        ValueError, match=r"outputs of shape \(8, 9, 5\) for 8 images have images first"
    ):
        _ = Evaluator(Last(), [(inputs, labels)]).accuracy


class Handed(nn.Module):
    """Gives the state of a step back, as norse's cells do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x, state=None):
        v = self.fc(x) if state is None else 0.9 * state[0][0] + self.fc(x)
        return (v > 0.2).float(), [(v,)]


@pytest.mark.parametrize("data", [dynamic, still])
def test_a_state_that_is_handed_back_is_refused(data):
    inputs, labels = data(6)
    with pytest.raises(ValueError, match="returns the state of its neurons"):
        _ = Evaluator(Handed(), [(inputs, labels)]).accuracy

    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Handed()

        def forward(self, x):
            outputs, state = [], None
            for step in x:
                spikes, state = self.cell(step, state)
                outputs.append(spikes)
            return torch.stack(outputs), state

    spikes, labels = dynamic(6)
    assert Evaluator(Owner(), [(spikes, labels)]).accuracy >= 0


def test_spikes_can_be_of_any_type():
    model, (inputs, labels) = Looping(dense_jelly()), dynamic(6)

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = model

        def forward(self, x):
            return self.own(x.float())

    expected = Evaluator(model, [(inputs, labels)]).accuracy
    for dtype in (torch.bool, torch.uint8, torch.int64):
        assert Evaluator(Cast(), [(inputs.to(dtype), labels)]).accuracy == expected


def test_inputs_with_images_first_are_refused():
    spikes, labels = dynamic(2, 6, 6)
    with pytest.raises(ValueError, match=r"images first, expected time first"):
        _ = Evaluator(conv_snntorch(), [(spikes.transpose(0, 1), labels)]).accuracy


def test_what_time_can_be():
    spikes, images = [dynamic(6)], [still(6)]
    for time in (0, -1, 2.5, True, "loop"):
        with pytest.raises(ValueError, match="time must be None"):
            Evaluator(dense_jelly(), images, time=time)
    with pytest.raises(ValueError, match=r'time is "steps", but inputs of shape \(40, 6\)'):
        _ = Evaluator(dense_jelly(), images, time="steps").accuracy
    with pytest.raises(ValueError, match=r"time is 3, but inputs .* with 7 steps"):
        _ = Evaluator(dense_jelly(), spikes, time=3).accuracy
    steps = Evaluator(dense_jelly(), spikes, time="steps")
    assert steps.accuracy == Evaluator(steps._subject.model, spikes, time=STEPS).accuracy


def test_another_network_on_the_same_images_meets_time_in_its_own_way():
    loader = split(*dynamic(6), 1)
    test = Evaluator(Looping(dense_jelly()), loader)
    single = dense_snntorch()
    assert test.accuracy == test.accuracy
    assert test.on(single).accuracy == Evaluator(single, loader, time="steps").accuracy


def test_compiled_networks_run_over_time():
    model, loader = dense_jelly(), split(*dynamic(6), 1)
    expected = asked(model, loader)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    assert asked(torch.compile(model, backend="eager"), loader, weights=weights) == expected


def test_a_network_for_one_size_of_batch():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense_jelly()

        def forward(self, x):
            return self.net(x + torch.zeros(20, 6))

    inputs, labels = dynamic(6)
    model, loader = Fixed(), list(zip(inputs.split(20, 1), labels.split(20), strict=True))
    assert asked(model, loader) == asked(Looping(model), loader)


def test_an_error_of_the_network_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        _ = Evaluator(nn.Linear(3, 5), [dynamic(6)]).accuracy


class Encoded(nn.Module):
    """Several neurons of the output for each class, as snnTorch's population code has them."""

    def __init__(self, each):
        super().__init__()
        self.fc, self.each = nn.Linear(CLASSES, CLASSES * each, bias=False), each
        with torch.no_grad():
            self.fc.weight.copy_(torch.eye(CLASSES).repeat_interleave(each, 0))

    def forward(self, x):
        outputs = self.fc(x)
        jitter = torch.linspace(0, 0.5, self.each).repeat(CLASSES)
        return (outputs + outputs * jitter).expand(4, *outputs.shape)


@pytest.mark.parametrize("records", [1, 2])
def test_steps_in_a_list_are_not_taken_for_the_first_one(records):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = dense_jelly()

        def forward(self, x):
            steps = [self.own(one) for one in x]
            return steps if records == 1 else (steps, steps)

    with pytest.raises(ValueError, match=r"Return torch.stack\(steps\) for a list of steps"):
        _ = Evaluator(Listed(), [dynamic(6)]).accuracy


@pytest.mark.parametrize("each", [2, 30])
def test_several_outputs_for_each_class_are_asked_for(each):
    labels = torch.arange(60) % CLASSES
    loader = [(torch.eye(CLASSES)[labels], labels)]
    test = Evaluator(Encoded(each), loader, scores=population_scores(CLASSES))
    assert test.accuracy == 1.0
    for ask in (lambda e: e.accuracy, lambda e: e.chips(Gaussian(0.05), chips=2)):
        with pytest.raises(ValueError, match=r"pass scores=population_scores\(5\)"):
            ask(Evaluator(Encoded(each), loader))
    assert Evaluator(Encoded(each), loader, scores=class_scores).accuracy < 0.4


def test_classes_that_do_not_occur_are_no_population():
    labels = torch.arange(60) % 2
    network = nn.Linear(10, 10, bias=False)
    nn.init.eye_(network.weight)
    assert Evaluator(network, [(torch.eye(10)[labels], labels)]).accuracy == 1.0


def test_population_scores():
    assert population_scores(2)(torch.ones(3, 1, 6)).tolist() == [[9.0, 9.0]]
    with pytest.raises(ValueError, match="classes must be at least 1"):
        population_scores(0)
    with pytest.raises(ValueError, match="6 outputs, expected a multiple of 4"):
        population_scores(4)(torch.ones(1, 6))


def test_the_loader_is_read_no_more_often():
    read = []

    def once():
        for batch in split(*dynamic(6), 1):
            read.append(1)
            yield batch

    test = Evaluator(dense_snntorch(), once())
    assert test.accuracy == test.chips(Ideal(), chips=1).accuracies[0]
    assert len(read) == 3
