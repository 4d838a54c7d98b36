"""Comparisons on a network of one's own: results, methods, what goes wrong, the command."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import snntorch
import torch
from test_cli import call, error
from torch import nn

from spikewvat import compare
from spikewvat.adapters import adapter_for
from spikewvat.comparison import CORRUPTIONS, METHODS, Method, Steps
from spikewvat.comparison.batches import samples
from spikewvat.devices import Gaussian, Uniform
from spikewvat.errors import DataError, RecipeError, UnsupportedModelError
from spikewvat.lab.recipes.schema import METHODS as METHOD_NAMES
from spikewvat.lab.report import collect
from spikewvat.lab.suites import ComparisonFolder
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


def folder_of(path, title="Mine"):
    return ComparisonFolder(path, title)


def test_a_network_as_it_is_equals_a_sweep(tmp_path):
    model = Spiking()
    model(BATCHES[0][0])  # alive: it holds state that cannot be copied
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"devices": DEVICES, "corruptions": {}, "sigmas": (0.0, 0.2), "chips": 5}
    found = compare(model, BATCHES, **options, target=0.5, on_row=folder_of(tmp_path))
    assert [(row.test, row.method) for row in found.rows] == [
        ("Gaussian", "as it is"),
        ("uniform", "as it is"),
    ]
    for name, device_at in DEVICES.items():
        curve = Evaluator(model, BATCHES).sweep(device_at, (0.0, 0.2), chips=5, target=0.5)
        row = found.row(name, "as it is")
        assert plain(row.curves[0]) == plain(curve)
        written = read(tmp_path / f"{name.lower()}-as-it-is.json", RowResult)
        assert written.pooled.means == curve.means
        assert f"{100 * curve[-1].worst:.1f}" in str(found)
        assert f"{curve[-1].yield_at(0.5).working} of 5 (" in str(found)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(KeyError, match="no result for 'Gaussian' and 'WVAT' .tests: Gaussian, uni"):
        found.row("Gaussian", "WVAT")


def test_what_is_printed():
    options = {"sigmas": (0.0, 0.1), "chips": 2, "seeds": (0, 1), "devices": DEVICES}
    found = compare(linear, (BATCHES, BATCHES), train, corruptions={}, **options)
    gaussian, uniform, note = str(found).split("\n\n")
    head, *rows = gaussian.splitlines()
    assert re.split("  +", head) == [
        *("Gaussian", "no variation", "σ = 0 %", "σ = 10 %", "worst chip", "working chips")
    ]
    assert [line.split("  ")[0] for line in rows] == ["plain", "SWA", "WVAT"]
    assert f"{100 * found.row('Gaussian', 'WVAT').mean(-1):.1f} ± " in rows[-1]
    assert len({len(line) for line in gaussian.splitlines()}) == 1
    assert uniform.startswith("uniform")
    assert "standard deviation over trainings" in note


class Counting:
    """Batches that count how often they are read, and how far."""

    def __init__(self, batches):
        self.batches, self.passes, self.read = batches, 0, 0

    def __iter__(self):
        self.passes += 1
        for batch in self.batches:
            self.read += 1
            yield batch


def test_the_test_batches_are_read_once():
    loader = Counting(BATCHES)
    options = {"chips": 2, "seeds": (0, 1), "devices": DEVICES}
    found = compare(linear, (BATCHES, loader), train, **options)
    assert len(found.rows) > len(DEVICES)
    assert (loader.passes, loader.read) == (1, len(BATCHES))


def test_a_network_that_changes_its_input_sees_the_same_again():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, images):
            return self.fc(images.add_(1))

    images = torch.eye(3)
    found = compare(
        InPlace(), [(images, torch.arange(3))], devices=DEVICES, corruptions={}, chips=2
    )
    first = [row.curves[0].clean for row in found.rows]
    assert first[0] == first[1]
    assert torch.equal(images, torch.eye(3))


def test_samples_are_counted_without_reading_where_that_is_known():
    loader = Counting(BATCHES)
    assert samples(loader) == 4
    loader.dataset = range(17)
    assert samples(loader) == 17
    assert loader.passes == 1


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
    options = {"devices": {}, "chips": 3}
    on_row = folder_of(tmp_path)
    found = compare(model, EVENTS, corruptions=corruptions, on_row=on_row, **options)
    for name, happens in corruptions.items():
        severities = (0.0, *happens.LEVELS[::2])
        curve = Evaluator(model, EVENTS).corrupt(happens, severities, chips=3)
        assert plain(found.row(name, "as it is").curves[0]) == plain(curve)
    written = read(tmp_path / "lost-neurons-as-it-is.json", RowResult)
    assert written.axis.name == "dead neurons"
    assert written.sigmas == severities
    assert "lost neurons" in str(found)
    options["severities"] = [0.3]
    found = compare(model, EVENTS, corruptions={"both": both}, **options)
    assert found.row("both", "as it is").pooled.sigmas == (0.3,)
    options["severities"] = None
    found = compare(model, EVENTS, corruptions={"both": both}, **options)
    assert found.row("both", "as it is").pooled.sigmas == (0.0, *Deletion.LEVELS[::2])
    with pytest.raises(ValueError, match="'fixed' has no levels of its own"):
        compare(model, EVENTS, corruptions={"fixed": lambda severity: Deletion(0.1)}, devices={})


def both(severity):
    return Deletion(severity) >> DeadNeurons(0.1)


def test_what_cannot_happen_is_skipped_unless_it_was_asked_for():
    found = compare(SpikingOnEvents(), EVENTS, devices={}, chips=1)
    assert set(found.tests) == set(CORRUPTIONS)
    assert not found.skipped
    found = compare(linear(), BATCHES, devices={"g": Gaussian}, chips=1)  # no neurons, no events
    assert {"dead neurons", "deletion"} <= dict(found.skipped).keys()
    assert found.tests == ("g", "read noise")
    with pytest.raises(UnsupportedModelError):
        compare(linear(), BATCHES, corruptions={"dead": DeadNeurons}, chips=1)
    with pytest.raises(DataError, match="corruption 'lost' cannot be applied: "):
        compare(linear(), BATCHES, corruptions={"lost": Deletion}, chips=1)


class OneStep(nn.Module):
    """A leaky neuron that one call takes one step further."""

    def __init__(self):
        super().__init__()
        self.fc, self.lif = nn.Linear(3, 3), snntorch.Leaky(beta=0.9, init_hidden=True)

    def forward(self, images):
        return self.lif(self.fc(images))


def test_a_network_of_one_step_is_run_over_time():
    options = {"devices": {"g": Gaussian}, "corruptions": {}, "chips": 2}
    with pytest.raises(DataError, match="one time step per call.*Pass time=10"):
        compare(OneStep(), BATCHES, **options)
    model = OneStep()
    found = compare(model, BATCHES, time=5, **options).row("g", "as it is").curves[0]
    assert plain(found) == plain(
        Evaluator(model, BATCHES, time=5).sweep(Gaussian, (0.0, 0.05, 0.1), chips=2)
    )


def test_methods_are_compared_on_the_same_chips():
    options = {"devices": DEVICES, "corruptions": {}, "sigmas": (0.0, 0.1), "chips": 4}
    found = compare(linear, (BATCHES, BATCHES), train, **options, seeds=(0, 1))
    assert found.methods == ("plain", "SWA", "WVAT")
    assert len(found.rows) == 6
    assert not found.failures
    seeds = {report.seeds for row in found.rows for curve in row.curves for report in curve}
    assert len(seeds) == 1
    assert found.training_samples == 4
    assert found.row("uniform", "WVAT").seeds == (0, 1)
    assert len(found.row("uniform", "WVAT").seconds) == 2


def test_trainings_are_equal_whatever_ran_before():
    options = {"devices": {"g": Gaussian}, "corruptions": {}, "sigmas": (0.0, 0.1), "chips": 2}
    both = compare(linear, (BATCHES, BATCHES), train, **options, seeds=(3, 1))
    torch.rand(1)
    methods = {"WVAT": METHODS["WVAT"]}
    one = compare(linear, (BATCHES, BATCHES), train, methods=methods, **options, seeds=(1,))
    assert plain(both.row("g", "WVAT").curves[1]) == plain(one.row("g", "WVAT").curves[0])


def test_what_methods_do_is_what_the_loop_would_do():
    """Plain is ``loss.backward()``, SWA the mean of the last quarter, WVAT its own gradient."""
    networks = {}

    def remember(model, loader, method):
        train(model, loader, method)
        networks.setdefault("trained", []).append(model.weight.detach().clone())

    options = {"devices": {"g": Gaussian}, "corruptions": {}, "sigmas": [0.0], "chips": 1}
    compare(linear, (BATCHES, BATCHES), remember, **options)
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

    options = {"devices": {"Gaussian": Gaussian}, "sigmas": [0.0], "chips": 1, "corruptions": {}}
    folder, seen = folder_of(tmp_path), []

    def on_row(found, new):
        folder(found, new)
        seen.append(
            (None if new is None else str(new).split(",")[0].split(":")[0], len(found.rows))
        )

    found = compare(linear, (BATCHES, BATCHES), forgets, **options, on_row=on_row)
    assert [(row.test, row.method) for row in found.rows] == [("Gaussian", "plain")]
    assert [failure.method for failure in found.failures] == ["SWA", "WVAT"]
    assert seen == [(None, 0), ("plain", 1), ("SWA", 1), ("WVAT", 1)]
    assert "Call method.epoch_ended(epoch, epochs)" in str(found.failures[0].error)
    assert "SWA: failed: ValueError: no weights were averaged" in str(found)
    (section,) = collect(tmp_path)
    assert section.missing == ("Gaussian: SWA", "Gaussian: WVAT")
    (error_line, *_), (names, *_) = list(section.failures), list(section.failures.values())
    assert error_line.startswith("ValueError: no weights were averaged")
    assert names == ("swa-failed", "wvat-failed")
    compare(linear, (BATCHES, BATCHES), train, **options, on_row=folder_of(tmp_path))
    (section,) = collect(tmp_path)
    assert not section.missing
    assert not section.failures
    # Rows of an earlier comparison are no rows of this one.
    compare(linear, (BATCHES, BATCHES), forgets, **options, on_row=folder_of(tmp_path))
    (section,) = collect(tmp_path)
    assert section.missing == ("Gaussian: SWA", "Gaussian: WVAT")

    def breaks(model, loader, method):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        compare(linear, (BATCHES, BATCHES), breaks)


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
    found = compare(linear, (BATCHES, BATCHES), train, methods=methods, **options)
    assert found.row("g", "mine").mean(0) >= 0
    assert steps.count("step") == 8
    # After each step, before the next one and before weights are averaged or tested.
    assert "stepstep" not in "".join(steps)
    assert steps[-1] == "after"


def test_some_methods_look_at_the_optimizer_and_at_outputs(mine):
    """Every method by name; those that need more than the loss say so."""
    options = ("--device", "gaussian", "--sigma", "0.1", "--chips", 1)
    names = [name for name in METHOD_NAMES if name not in ("ptq", "stochastic-thresholds")]
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
        compare(linear(), loaders)


def test_wrong_input(tmp_path):
    with pytest.raises(DataError, match="needs training batches too"):
        compare(linear, BATCHES, train)
    with pytest.raises(DataError, match="the training loader yields no batch"):
        compare(linear, ([], BATCHES), train)
    with pytest.raises(UnsupportedModelError, match="returned None, expected a torch.nn.Module"):
        compare(lambda: None, BATCHES)
    with pytest.raises(UnsupportedModelError, match="synaptic"):
        compare(nn.Flatten(), BATCHES)
    with pytest.raises(ValueError, match="methods is empty, expected at least one"):
        compare(linear, (BATCHES, BATCHES), train, methods={})
    with pytest.raises(ValueError, match="methods need a training function"):
        compare(linear, BATCHES, methods=METHODS)
    with pytest.raises(ValueError, match="devices and corruptions are both empty"):
        compare(linear, BATCHES, devices={}, corruptions={})
    with pytest.raises(ValueError, match="'jitter' names both a device and a corruption"):
        compare(linear, BATCHES, devices={"jitter": Gaussian})
    with pytest.raises(ValueError, match=r"severities \[0.1\] with 0 corruptions"):
        compare(linear, BATCHES, corruptions={}, severities=[0.1])
    with pytest.raises(ValueError, match=r"seeds are \[1, 1\], expected one or more distinct"):
        compare(linear, BATCHES, seeds=[1, 1])
    with pytest.raises(ValueError, match="sigma must be a finite"):  # before training
        options = {"corruptions": {}, "sigmas": [0.1, -0.1]}
        compare(linear, (BATCHES, BATCHES), lambda *_: pytest.fail("trained"), **options)
    names = {"a b": Gaussian, "A-B": Gaussian}
    with pytest.raises(RecipeError, match="names that differ in letters or digits"):
        compare(linear, BATCHES, devices=names, corruptions={}, on_row=folder_of(tmp_path))


def test_the_library_does_without_the_laboratory():
    code = (
        "import sys, torch, spikewvat;"
        "spikewvat.compare(torch.nn.Linear(2, 2), [(torch.eye(2), torch.arange(2))], chips=2);"
        "print([m for m in sys.modules if m.startswith(('spikewvat.lab', 'pydantic', 'typer'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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

def make_step():
    return nn.Sequential(nn.Linear(3, 3), Leaky(beta=0.9, init_hidden=True))

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
    return ("compare", "--model", "mine:make_model", "--data", "mine:make_loaders")


def names_in(folder):
    return {path.stem.removesuffix("-as-it-is") for path in folder.glob("*-as-it-is.json")}


def test_the_command(mine, tmp_path):
    done = call(*mine, "--chips", 3, "--sigma", "0,0.1", "--device", "all", "--target", "0.25")
    folder = tmp_path / "runs" / "mine.make_model"
    assert f"Written: {folder.relative_to(tmp_path) / 'table.md'}" in done.stdout
    assert "as it is" in done.stdout
    row = read(folder / "gaussian-as-it-is.json", RowResult)
    assert row.sigmas == (0.0, 0.1)
    assert row.curves[0][1].chips == 3
    assert "≥ 25 %" in (folder / "table.md").read_text()
    call("report", folder)
    assert "Gaussian, 1 % of the cells stuck" in (folder / "report.html").read_text()


def test_who_goes_through_time(mine, tmp_path):
    step = ("compare", "--model", "mine:make_step", "--data", "mine:make_loaders", "--chips", 1)
    step += ("--device", "gaussian", "--out", tmp_path / "out")
    assert "one time step per call" in error(*step)
    call(*step, "--time", "4")
    assert read(tmp_path / "out/gaussian-as-it-is.json", RowResult).curves[0][0].chips == 1
    call(*step, "--time", "network")
    assert "have their images along the second axis" in error(*step, "--time", "steps")
    assert "--time 0: expected network, steps or a number" in error(*step, "--time", "0")


def test_devices_and_corruptions_by_name(mine, tmp_path):
    events = ("compare", "--model", "mine:make_spiking", "--data", "mine:make_events")
    events += ("--chips", 2, "--out", tmp_path / "out")
    flips = ("--corruption", "polarity-flip", "--severities", "0,0.5")
    call(*events, *flips, "--corruption", "deletion>>jitter:severity=1")
    assert read(tmp_path / "out/polarity-flip-as-it-is.json", RowResult).sigmas == (0.0, 0.5)
    assert names_in(tmp_path / "out") == {"polarity-flip", "deletion-jitter-severity-1"}
    events = (*events[:-1], tmp_path / "other" / "mine")
    call(*events, "--corruption", "all", "--device", "lognormal")
    names = names_in(tmp_path / "other" / "mine")
    assert names == {"lognormal", *(name.replace(" ", "-") for name in CORRUPTIONS)}
    done = call(*mine, "--chips", 1)
    assert "skipped: dead neurons: " in done.stderr
    call("report", tmp_path / "other")
    assert "dead neurons" in (tmp_path / "other" / "report.md").read_text()


def test_methods_by_name(mine, tmp_path):
    options = ("--device", "quantized:bits=4>>gaussian", "--sigma", "0,0.1", "--chips", 2)
    methods = ("--method", "plain", "--method", "swa", "--method", "wvat:alpha=0.05+swa")
    trained = (*mine, "--train", "mine:train", *options, "--seeds", "0,1")
    done = call(*trained, *methods, "--method", "sam:rho=0.01", "--out", tmp_path / "out")
    (section,) = collect(tmp_path / "out")
    (setup,) = section.suite.setups
    names = [row.method for row in setup.rows]
    assert names == ["plain", "swa", "wvat:alpha=0.05+swa", "sam:rho=0.01"]
    assert len(section.results) == 4
    assert "sam:rho=0.01" in done.stdout
    forgets = (*mine, "--train", "mine:forgets", *options, *methods)
    failed = call(*forgets, code=1)
    assert "error: swa: failed: ValueError: no weights were averaged." in failed.stderr


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
        (("--sigma", "-0.1"), "--sigma -0.1: expected numbers of at least 0"),
        (("--sigma", "nan"), "expected numbers of at least 0"),
        (("--severities", "0,-1"), "--severities 0,-1: expected numbers of at least 0"),
        (("--chips", "0"), "'--chips'.* See .* --help"),
        (("--target", "95"), "'--target'"),
        (("--seeds", "0,0"), "--seeds '0,0': a number is repeated"),
        (("--device", "gausian"), "'gaussian'"),
        (("--device", "gaussian", "--severities", "0"), "--severities 0 need a corruption"),
        (("--corruption", "deletions"), "'deletion'"),
        (("--corruption", "dead-neurons"), "neurons"),
        (("--corruption", "deletion"), "'deletion' cannot be applied"),
        (("--corruption", "all", "--corruption", "jitter"), "expected no other --corruption"),
        (("--corruption", "deletion", "--sigma", "0.1"), "--sigma 0.1 needs a device"),
        (("--method", "sam"), "--method needs --train"),
        (("--train", "mine:train", "--method", "samm"), "--method = 'samm' is unknown"),
        (("--train", "mine:train", "--method", "sam>>awp"), "expected one method"),
        (("--train", "mine:train", "--method", "ptq"), "is plain training"),
        (("--rows", "a"), "no such option: --rows"),
    ],
)
def test_wrong_options_are_one_line(mine, arguments, message):
    line = error(*mine, *arguments)
    assert re.search(message, line), line


def test_what_is_missing_is_one_line(mine):
    assert "missing option '--data'" in error(*mine[:3])
    assert "missing option '--model'" in error("compare")
    assert "no such option: --model" in error("bench", *mine[1:])
    line = error("bench")
    assert "which SUITE? There are " in line
    assert "spikewvat compare" in line


def test_a_pruned_network_is_copied_for_its_training():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    torch.nn.utils.prune.l1_unstructured(network[0], "weight", amount=0.25)
    network(torch.eye(2)).sum().backward()  # its computed weight holds a graph
    batches = [(torch.eye(2), torch.arange(2))]
    found = compare(network, batches, devices={"Gaussian": Gaussian}, corruptions={}, chips=2)
    assert "Gaussian" in str(found)
