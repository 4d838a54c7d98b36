"""A bench for a network of one's own: results, methods, what goes wrong, the command."""

from __future__ import annotations

import re
import sys

import pytest
import snntorch
import torch
from test_cli import call, error
from torch import nn

from spikewvat.adapters import adapter_for
from spikewvat.devices import Gaussian, Uniform
from spikewvat.errors import DataError, UnsupportedModelError
from spikewvat.lab.recipes.schema import METHODS as METHOD_NAMES
from spikewvat.lab.report import collect
from spikewvat.lab.suites import Method, bench
from spikewvat.lab.suites.methods import METHODS, Steps
from spikewvat.lab.suites.own import CORRUPTIONS
from spikewvat.results import RowResult
from spikewvat.robustness import Evaluator
from spikewvat.robustness.corruptions import DeadNeurons, Deletion
from spikewvat.serialisation import plain, read
from spikewvat.training import GradientMethod

DEVICES = {"Gaussian": Gaussian, "uniform": Uniform}
BATCHES = [
    (torch.eye(3)[[0, 1, 2]], torch.tensor([0, 1, 2])),
    (torch.eye(3)[:1], torch.zeros(1).long()),
]


class Spiking(nn.Module):
    """Three steps of a leaky neuron behind a linear layer."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 3), snntorch.Leaky(beta=0.9, init_hidden=True)

    def forward(self, images):
        return torch.stack([self.lif(self.fc(images)) for _ in range(3)])


def train(model, loader, method, epochs=4):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for epoch in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            method.backward(lambda: nn.functional.cross_entropy(model(images), labels))
            optimizer.step()
        method.epoch_ended(epoch, epochs)


def linear():
    return nn.Linear(3, 3)


def test_a_network_as_it_is_equals_a_sweep(tmp_path):
    model = Spiking()
    model(BATCHES[0][0])  # alive: it holds state that cannot be copied
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"devices": DEVICES, "corruptions": {}, "sigmas": (0.0, 0.2), "chips": 5}
    found = bench(model, BATCHES, **options, out=tmp_path)
    assert list(found.rows) == ["gaussian-as-it-is", "uniform-as-it-is"]
    for name, device_at in DEVICES.items():
        curve = Evaluator(model, BATCHES).sweep(device_at, (0.0, 0.2), chips=5)
        row = found.row(name, "as it is")
        assert plain(row.curves[0]) == plain(curve)
        written = read(tmp_path / f"{name.lower()}-as-it-is.json", RowResult)
        assert written.pooled.means == curve.means
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "| as it is |" in str(found)
    with pytest.raises(KeyError, match="no result for 'Gaussian' and 'WVAT'"):
        found.row("Gaussian", "WVAT")


EVENTS = [((torch.rand(4, 6, 2, 2, 2) < 0.4).float(), torch.arange(6) % 3)]


class SpikingOnEvents(Spiking):
    """Sees events ``[T, B, 2, 2, 2]``."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 3)

    def forward(self, events):
        return torch.stack([self.lif(self.fc(step.flatten(1))) for step in events])


def test_what_happens_to_spikes_equals_a_sweep(tmp_path):
    model = SpikingOnEvents()
    corruptions = {"deletion": Deletion, "lost neurons": DeadNeurons}
    options = {"devices": {}, "chips": 3, "out": tmp_path}
    found = bench(model, EVENTS, corruptions=corruptions, **options)
    for name, happens in corruptions.items():
        severities = (0.0, *happens.LEVELS[::2])
        curve = Evaluator(model, EVENTS).corrupt(happens, severities, chips=3)
        assert plain(found.row(name, "as it is").curves[0]) == plain(curve)
    written = read(tmp_path / "lost-neurons-as-it-is.json", RowResult)
    assert written.axis.name == "dead neurons"
    assert written.sigmas == severities
    assert "| lost neurons |" in str(found)
    options["severities"] = [0.3]
    found = bench(model, EVENTS, corruptions={"both": both}, **options)
    assert found.row("both", "as it is").sigmas == (0.3,)
    options["severities"] = None
    found = bench(model, EVENTS, corruptions={"both": both}, **options)
    assert found.row("both", "as it is").sigmas == (0.0, *Deletion.LEVELS[::2])
    with pytest.raises(ValueError, match="'fixed' has no levels of its own"):
        bench(model, EVENTS, corruptions={"fixed": lambda severity: Deletion(0.1)}, devices={})


def both(severity):
    return Deletion(severity) >> DeadNeurons(0.1)


def test_what_cannot_happen_is_skipped_unless_it_was_asked_for():
    found = bench(SpikingOnEvents(), EVENTS, devices={}, chips=1)
    assert {setup.name for setup in found.suite.setups} == set(CORRUPTIONS)
    assert not found.skipped
    found = bench(linear(), BATCHES, devices={"g": Gaussian}, chips=1)  # no neurons, no events
    assert "dead neurons" in found.skipped
    assert "deletion" in found.skipped
    with pytest.raises(UnsupportedModelError):
        bench(linear(), BATCHES, corruptions={"dead": DeadNeurons}, chips=1)


def test_methods_are_compared_on_the_same_chips():
    options = {"devices": DEVICES, "corruptions": {}, "sigmas": (0.0, 0.1), "chips": 4}
    found = bench(linear, (BATCHES, BATCHES), train, **options, seeds=(0, 1))
    assert [row.method for row in found.suite.setups[0].rows] == ["plain", "SWA", "WVAT"]
    assert len(found.rows) == 6
    assert not found.failed
    seeds = {report.seeds for row in found.rows.values() for c in row.curves for report in c}
    assert len(seeds) == 1
    row = found.row("uniform", "WVAT")
    assert row.samples == {"train": 4, "test": 4}
    assert row.seeds == (0, 1)
    assert len(row.seconds) == 2


def test_what_methods_do_is_what_the_loop_would_do():
    """Plain is ``loss.backward()``, SWA the mean of the last quarter, WVAT its own gradient."""
    networks = {}

    def remember(model, loader, method):
        train(model, loader, method)
        networks.setdefault("trained", []).append(model.weight.detach().clone())

    options = {"devices": {"g": Gaussian}, "corruptions": {}, "sigmas": [0.0], "chips": 1}
    bench(linear, (BATCHES, BATCHES), remember, **options)
    plain, swa, wvat = networks["trained"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = linear()
    optimizer, history = torch.optim.SGD(model.parameters(), lr=0.5), []
    for _ in range(4):
        for images, labels in BATCHES:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        history.append(model.weight.detach().clone())
    assert torch.equal(plain, model.weight)
    assert torch.equal(swa, plain)
    assert not torch.equal(wvat, plain)
    assert torch.equal(plain, history[-1])


def test_averages_are_of_the_last_quarter():
    model = nn.Linear(1, 1, bias=False)
    steps = Steps(METHODS["SWA"], model, adapter_for(model), torch.Generator())
    for epoch in range(8):
        nn.init.constant_(model.weight, float(epoch))
        steps.epoch_ended(epoch, 8)
    assert steps.finished([]).weight.item() == 6.5
    plain = Steps(METHODS["plain"], model, adapter_for(model), torch.Generator())
    plain.epoch_ended(0, 8)
    assert plain.finished([]) is model


def test_a_method_that_raises_does_not_stop_the_others(tmp_path):
    def forgets(model, loader, method):
        method.backward(lambda: model(loader[0][0]).sum())

    options = {"devices": {"Gaussian": Gaussian}, "sigmas": [0.0], "chips": 1, "out": tmp_path}
    options["corruptions"] = {}
    seen = []
    found = bench(
        linear, (BATCHES, BATCHES), forgets, **options, on_row=lambda name, _: seen.append(name)
    )
    assert list(found.rows) == ["gaussian-plain"]
    assert list(found.failed) == ["SWA", "WVAT"]
    assert seen == ["gaussian-plain", "SWA", "WVAT"]
    assert "Call method.epoch_ended(epoch, epochs)" in str(found.failed["SWA"])
    (section,) = collect(tmp_path)
    assert section.missing == ("Gaussian: SWA", "Gaussian: WVAT")
    (error_line, *_), (names, *_) = list(section.failures), list(section.failures.values())
    assert error_line.startswith("ValueError: nothing was averaged")
    assert names == ("swa-failed", "wvat-failed")
    bench(linear, (BATCHES, BATCHES), train, **options)
    (section,) = collect(tmp_path)
    assert not section.missing
    assert not section.failures

    def breaks(model, loader, method):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        bench(linear, (BATCHES, BATCHES), breaks)


def test_methods_of_ones_own():
    steps = []

    class Noted(GradientMethod):
        def _step(self, closure, backward):
            steps.append("step")
            return self._pass(closure, backward)

        def after_step(self):
            steps.append("after")

    methods = {"mine": Method(lambda model, *, optimizer, **options: Noted(model, **options))}
    options = {"devices": {"g": Gaussian}, "corruptions": {}, "sigmas": [0.0], "chips": 1}
    found = bench(linear, (BATCHES, BATCHES), train, methods=methods, **options)
    assert found.row("g", "mine").mean(0) >= 0
    assert steps.count("step") == 8
    # After each step, before the next one and before weights are averaged or tested.
    assert "stepstep" not in "".join(steps)
    assert steps[-1] == "after"


def test_some_methods_look_at_the_optimizer_and_at_outputs(mine):
    """Every method by name; those that need more than the loss say so."""
    options = ("--device", "gaussian", "--sigma", "0.1", "--chips", 1)
    names = [name for name in METHOD_NAMES if name != "ptq"]
    methods = [part for name in names for part in ("--method", name)]
    done = call(*mine, "--train", "mine:shows_all", *options, *methods)
    assert all(f"│ {name} " in done.stdout for name in names)


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        (3, "the test loader is 'int', expected batches"),
        (torch.eye(3), "the test loader is 'Tensor'"),
        ({"test": BATCHES}, "the test loader is 'dict'"),
        ([], "the test loader yields no batch"),
        (iter(BATCHES), "can be iterated only once"),
        ([torch.eye(3)], "a batch of the test loader is 'Tensor'"),
        ([(torch.eye(3), torch.tensor([0, 1, 7]))], "does not fit the test batches: labels range"),
        ([(torch.eye(3), torch.eye(3))], "does not fit the test batches: labels are"),
    ],
)
def test_loaders_of_the_wrong_form(loaders, message):
    with pytest.raises(DataError, match=message):
        bench(linear(), loaders)


def test_wrong_input():
    with pytest.raises(DataError, match="needs training batches too"):
        bench(linear, BATCHES, train)
    with pytest.raises(DataError, match="the training loader yields no batch"):
        bench(linear, ([], BATCHES), train)
    with pytest.raises(UnsupportedModelError, match="returned None, expected a torch.nn.Module"):
        bench(lambda: None, BATCHES)
    with pytest.raises(UnsupportedModelError, match="synaptic"):
        bench(nn.Flatten(), BATCHES)
    with pytest.raises(ValueError, match="methods are \\[\\], expected at least one"):
        bench(linear, (BATCHES, BATCHES), train, methods={})
    with pytest.raises(ValueError, match="names that differ in letters or digits"):
        bench(linear, BATCHES, devices={"a b": Gaussian, "A-B": Gaussian}, corruptions={})
    with pytest.raises(ValueError, match="devices and corruptions are \\[\\]"):
        bench(linear, BATCHES, devices={}, corruptions={})
    with pytest.raises(ValueError, match="sigma must be a finite"):  # before training
        bench(linear, (BATCHES, BATCHES), lambda *_: pytest.fail("trained"), sigmas=[0.1, -0.1])


MINE = """
import torch
from snntorch import Leaky
from torch import nn

BATCHES = [(torch.eye(3), torch.arange(3))]

def make_model():
    return nn.Sequential(nn.Linear(3, 3))

class Spiking(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(8, 3), Leaky(beta=0.9, init_hidden=True)

    def forward(self, events):
        return torch.stack([self.lif(self.fc(step.flatten(1))) for step in events])

def make_spiking():
    return Spiking()

def make_events():
    return [((torch.rand(4, 6, 2, 2, 2) < 0.4).float(), torch.arange(6) % 3)]

def make_flat():
    return nn.Flatten()

def make_loaders():
    return BATCHES, BATCHES

def no_loaders():
    return 3

def train(model, loader, method):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for epoch in range(4):
        for images, labels in loader:
            optimizer.zero_grad()
            method.backward(lambda: nn.functional.cross_entropy(model(images), labels))
            optimizer.step()
        method.epoch_ended(epoch, 4)

def shows_all(model, loader, method):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for images, labels in BATCHES:
        def closure():
            scores = model(images)
            return nn.functional.cross_entropy(scores, labels), scores
        optimizer.zero_grad()
        method.backward(closure, optimizer=optimizer)
        optimizer.step()

def forgets(model, loader, method):
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a module, the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    (tmp_path / "raises.py").write_text("1 / 0")
    return ("bench", "--model", "mine:make_model", "--data", "mine:make_loaders")


def test_the_command(mine, tmp_path):
    done = call(*mine, "--chips", 3, "--sigma", "0,0.1")
    folder = tmp_path / "runs" / "mine.make_model"
    assert f"Written: {folder.relative_to(tmp_path) / 'table.md'}" in done.stdout
    assert "as it is" in done.stdout
    row = read(folder / "gaussian-as-it-is.json", RowResult)
    assert row.sigmas == (0.0, 0.1)
    assert row.curves[0][1].chips == 3
    call("report", folder)
    assert "Gaussian, 1 % of the cells stuck" in (folder / "report.html").read_text()


def test_the_suites_from_the_command_line(mine, tmp_path):
    events = ("--model", "mine:make_spiking", "--data", "mine:make_events", "--chips", 2)
    folder = tmp_path / "runs" / "mine.make_spiking"

    def names():
        return {path.stem.removesuffix("-as-it-is") for path in folder.glob("*-as-it-is.json")}

    flips = ("--spikes", "polarity-flip", "--severities", "0,0.5")
    call("bench", *events, *flips, "--spikes", "deletion>>jitter:severity=1")
    assert read(folder / "polarity-flip-as-it-is.json", RowResult).sigmas == (0.0, 0.5)
    assert names() == {"polarity-flip", "deletion-jitter-severity-1"}
    call("bench", "spikes", *events, "--out", tmp_path / "other")
    folder = tmp_path / "other" / "mine.make_spiking"
    assert {"deletion", "read-noise"} <= names()
    assert "gaussian" not in names()
    folder = tmp_path / "runs" / "mine.make_model"
    done = call(*mine, "--chips", 1)
    assert "skipped: dead neurons: " in done.stderr
    call("report", tmp_path / "other")
    page = (tmp_path / "other" / "report.md").read_text()
    assert "dead neurons" in page


def test_methods_and_devices_by_name(mine, tmp_path):
    options = ("--device", "quantized:bits=4>>gaussian", "--sigma", "0,0.1", "--chips", 2)
    methods = ("--method", "plain", "--method", "swa", "--method", "wvat:alpha=0.05+swa")
    trained = (*mine, "--train", "mine:train", *options, "--seeds", "0,1")
    done = call(*trained, *methods, "--method", "sam:rho=0.01", "--out", tmp_path / "out")
    (section,) = collect(tmp_path / "out" / "mine.make_model")
    (setup,) = section.suite.setups
    names = [row.method for row in setup.rows]
    assert names == ["plain", "swa", "wvat:alpha=0.05+swa", "sam:rho=0.01"]
    assert len(section.results) == 4
    assert "sam:rho=0.01" in done.stdout
    forgets = (*mine, "--train", "mine:forgets", *options, *methods)
    failed = call(*forgets, code=1)
    assert "error: swa: failed: ValueError: nothing was averaged." in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "mine"), "--model 'mine': expected MODULE:FUNCTION"),
        (("--model", "nothing_there:make"), "there is no module 'nothing_there' in"),
        (("--model", "broken:make"), "broken needs nowhere_to_be_found"),
        (("--model", "raises:make"), "raises cannot be imported: ZeroDivisionError"),
        (("--model", "mine:mak_model"), "mine has no function 'mak_model'.*'make_model'"),
        (("--model", "mine:BATCHES"), "mine has no function 'BATCHES'"),
        (("--model", "mine:make_flat"), "synaptic"),
        (("--data", "mine:no_loaders"), "the test loader is 'int'"),
        (("--train", "mine:trai"), "mine has no function 'trai'"),
        (("--sigma", "-0.1"), "expected sizes from 0"),
        (("--device", "gausian"), "'gaussian'"),
        (("--spikes", "deletions"), "'deletion'"),
        (("--spikes", "dead-neurons"), "neurons"),
        (("--method", "sam"), "--method needs --train"),
        (("--train", "mine:train", "--method", "samm"), "--method = 'samm' is unknown"),
        (("--train", "mine:train", "--method", "sam>>awp"), "expected one method"),
        (("--train", "mine:train", "--method", "ptq"), "is plain training"),
        (("--rows", "a"), "--rows belongs to suites"),
    ],
)
def test_wrong_options_are_one_line(mine, arguments, message):
    line = error(*mine, *arguments)
    assert re.search(message, line), line


def test_options_without_a_model(mine):
    assert "--data belongs to a network of your own" in error(
        "bench", "--data", "mine:make_loaders"
    )
    assert "--model needs data" in error(*mine[:3])
    assert "the suites weights and spikes, got 'demo'" in error("bench", "demo", *mine[1:])
    assert "--spikes belongs to a network" in error("bench", "--spikes", "deletion")
    assert "which SUITE" in error("bench")
