"""The reference loop: it learns, it stops, and a killed run that is resumed leaves no trace."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import training_worker as worker
from torch import nn

from spikewvat import files
from spikewvat.data.augmentation import Chain, RandomFlip, RandomShift
from spikewvat.devices import Gaussian
from spikewvat.errors import CheckpointError, DivergedError
from spikewvat.lab.trainer import Trainer, derived_seed
from spikewvat.lab.trainer.batches import prepared
from spikewvat.lab.trainer.console import Totals, TrainingProgress, print_table
from spikewvat.perturbations import HSV
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.training import PerturbedGradient, Plain

FILES = ["best.safetensors", "checkpoint.safetensors", "model.safetensors"]


def content(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes() for name in ("best.safetensors", "model.safetensors")
    }


def fit(out, *, epochs=2, model=None, optimizer=None, train=None, resume=False, **options):
    settings = {
        k: options.pop(k)
        for k in ("patience", "clip_norm", "clamp", "precision", "compile", "tensorboard")
        if k in options
    }
    torch.manual_seed(0)
    model = model or worker.Rate()
    train = worker.loader() if train is None else train
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(out, epochs=epochs, progress=False, resume=resume, **settings)
    loss = options.pop("loss", rate_cross_entropy)
    return trainer.fit(model, train, loss, optimizer, **options)


@pytest.mark.parametrize("kind", ["plain", "wvat", "spiking"])
def test_it_learns_and_repeats_itself(tmp_path, kind):
    epochs = 25 if kind == "spiking" else 12
    first = worker.train(tmp_path / "a", kind, epochs=epochs)
    worker.train(tmp_path / "b", kind, epochs=epochs)
    assert first.history[-1]["loss"] < 0.7 * first.history[0]["loss"]
    assert first.best_accuracy > 0.8
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES
    assert first.averaged == (0 if kind == "plain" else epochs - 2)
    saved = files.load(tmp_path / "a" / "model.safetensors")
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, saved[name])
    assert not first.model.training


@pytest.mark.parametrize("kind", ["plain", "wvat", "past", "spiking"])
@pytest.mark.parametrize("stop_at", [1, 3])
def test_resumed_equals_uninterrupted(tmp_path, monkeypatch, kind, stop_at):
    whole = worker.train(tmp_path / "a", kind, epochs=5)
    evaluate = worker.Trainer.fit.__globals__["Loop"].accuracy
    calls = []

    def interrupted(loop, loader):
        calls.append(1)
        if len(calls) == stop_at + 1:
            raise KeyboardInterrupt
        return evaluate(loop, loader)

    with monkeypatch.context() as patch:
        patch.setattr("spikewvat.lab.trainer.loop.Loop.accuracy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.train(tmp_path / "b", kind, epochs=5)
    resumed = worker.train(tmp_path / "b", kind, epochs=5, resume=True)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(resumed.history) == 5
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16-mixed"},
        pytest.param({"precision": "bf16-mixed", "compile": True}, marks=pytest.mark.slow),
    ],
    ids=lambda options: "-".join(options) or "32",
)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_resumed_in_another_layout_with_fused_steps(tmp_path, monkeypatch, optimizer, options):
    """Files keep no layout, and fused kernels take memory as it lies."""

    def train(out, **more):
        torch.manual_seed(2)
        model = worker.images().to(memory_format=torch.channels_last)
        kinds = {
            "SGD": lambda: torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, fused=True),
            "Adam": lambda: torch.optim.Adam(model.parameters(), 0.01, fused=True),
        }
        noise = HSV(Gaussian(0.05))
        method = PerturbedGradient(model, noise, generator=torch.Generator().manual_seed(1))
        batches = torch.utils.data.DataLoader(
            worker.TinyImages(".", "train"), 20, shuffle=True, generator=torch.Generator()
        )
        augment = Chain([RandomShift(2), RandomFlip()])
        more |= {"train": batches, "method": method, "augment": augment, "watch": batches}
        more |= {"loss": nn.functional.cross_entropy, "epochs": 4, **options}
        fit(out, model=model, optimizer=kinds[optimizer](), **more)

    train(tmp_path / "a")
    saved = Trainer._save

    def interrupted(trainer, name, tree):
        saved(trainer, name, tree)
        if (trainer.out / "checkpoint.safetensors").is_file():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "b")
    train(tmp_path / "b", resume=True)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_fused_steps_take_gradients_of_any_layout(tmp_path):
    class Contiguous(Plain):
        def backward(self, closure, *, backward=torch.Tensor.backward):
            loss = super().backward(closure, backward=backward)
            for parameter in self.model.parameters():
                parameter.grad = parameter.grad.contiguous()
            return loss

    found = []
    for fused in (False, True):
        torch.manual_seed(2)
        model = worker.images().to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, fused=fused)
        train = torch.utils.data.DataLoader(worker.TinyImages(".", "train"), 20)
        options = {"method": Contiguous(model), "loss": nn.functional.cross_entropy}
        fit(tmp_path / str(fused), model=model, optimizer=optimizer, train=train, **options)
        found.append(model[3].weight.detach())
    torch.testing.assert_close(*found)


def test_batches_are_read_ahead_on_a_thread_where_that_draws_nothing():
    def threads(dataset, *, known=True, **options):
        loader = torch.utils.data.DataLoader(dataset, 8, **options)
        found = []

        def noted(batch):
            found.append(threading.current_thread() is threading.main_thread())
            return batch

        with prepared(loader, noted) as batches:
            labels = torch.cat([labels for _, labels in batches])
        if known:
            assert torch.equal(labels, torch.cat([labels for _, labels in loader]))
        return set(found)

    images = worker.TinyImages(".", "train")
    assert threads(images) == threads(torch.utils.data.Subset(images, range(20))) == {False}
    assert threads(worker.data()) == {True}  # nobody knows whether it draws
    by_chance = torch.utils.data.WeightedRandomSampler([1.0] * len(images), 20)
    assert threads(images, sampler=by_chance, known=False) == {True}
    collate = torch.utils.data.default_collate
    assert threads(images, collate_fn=lambda items: collate(items)) == {True}
    assert threads(worker.data(), num_workers=1) == {False}  # others draw


def test_a_thread_that_reads_hands_its_errors_on_and_ends():
    loader = torch.utils.data.DataLoader(worker.TinyImages(".", "train"), 8)
    count = threading.active_count()

    def broken(batch):
        broken.seen += 1
        if broken.seen == 3:
            raise OSError("the disk is gone")
        return batch

    broken.seen = 0
    with pytest.raises(OSError, match="disk is gone"), prepared(loader, broken) as batches:
        assert len(list(zip(batches, range(2), strict=False))) == 2
        next(batches)
    with pytest.raises(KeyboardInterrupt), prepared(loader, lambda batch: batch) as batches:
        next(batches)
        raise KeyboardInterrupt
    assert threading.active_count() == count


class Jittered(torch.utils.data.Dataset):
    """A data set that draws from the global generator, in whatever process it is read."""

    def __init__(self) -> None:
        self._data = worker.data()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index):
        spikes, label = self._data[index]
        return spikes * torch.rand(()), label


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_with_random_data_and_persistent_workers(tmp_path, monkeypatch, workers):
    def train(out, epochs, resume=False):
        batches = worker.loader(
            Jittered(), num_workers=workers, persistent_workers=workers > 0, batch_size=16
        )
        # A shorter run with the same identity is one that was interrupted.
        return fit(out, epochs=epochs, train=batches, resume=resume)

    train(tmp_path / "whole", 3)
    train(tmp_path / "parts", 1)
    train(tmp_path / "parts", 3, resume=True)
    saved = [files.load(tmp_path / name / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


def kill_and_resume(tmp_path: Path, kind: str, kills: int, seed: int) -> None:
    """Kill a run by SIGKILL so many times; after each round, compare with one that ran through."""
    epochs = 40
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["training_worker", "spikewvat.lab.models.snntorch", "lightning_fabric"]
    )

    def start(out):
        started = context.Event()
        process = context.Process(target=worker.run, args=(out, kind, epochs, started))
        process.start()
        assert started.wait(300)
        return process

    process = start(tmp_path / "whole")
    began = time.monotonic()
    process.join()
    assert process.exitcode == 0
    an_epoch = (time.monotonic() - began) / epochs
    expected = content(tmp_path / "whole")
    moments = random.Random(seed)
    landed, rounds, positions = 0, 0, []
    while landed < kills:
        out = tmp_path / f"round{rounds}"
        path = out / "checkpoint.safetensors"
        rounds += 1
        process = start(out)
        while landed < kills:
            # So many checkpoints later and then at any moment, while saving too.
            for _ in range(moments.randrange(6)):
                wait_for_change(path, process)
            process.join(moments.uniform(0, 3 * an_epoch))
            if process.exitcode is not None:
                break
            process.kill()
            process.join()
            landed += 1
            positions.append(files.load(path)["position"]["epoch"] if path.exists() else 0)
            process = start(out)
        process.join()
        assert process.exitcode == 0
        assert content(out) == expected
        assert sorted(path.name for path in out.iterdir()) == FILES
    assert any(0 < position < epochs for position in positions), positions


def wait_for_change(path: Path, process) -> None:
    """Wait until a file is replaced, or its writer has ended."""

    def stamp():
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    before = stamp()
    while stamp() == before and process.exitcode is None:
        time.sleep(0.001)


@pytest.mark.parametrize("kind", ["plain", "wvat"])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, kind):
    kill_and_resume(tmp_path, kind, kills=3, seed=11)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "wvat", "spiking"])
def test_killed_twenty_times(tmp_path, kind):
    kill_and_resume(tmp_path, kind, kills=20, seed=12)


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    worker.train(tmp_path, "wvat", epochs=3)
    before = content(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert len(worker.train(tmp_path, "wvat", epochs=3, resume=True).history) == 3
    assert content(tmp_path) == before


def test_resume_without_a_checkpoint_starts_anew(tmp_path):
    assert len(fit(tmp_path, resume=True).history) == 2


def test_an_earlier_run_is_not_overwritten(tmp_path):
    fit(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds a checkpoint of an earlier run.*--resume"):
        fit(tmp_path)


def test_checkpoint_of_another_recipe(tmp_path):
    fit(tmp_path, identity={"training": {"lr": 0.1, "sizes": (1, 2)}, "name": "a"})
    fit(tmp_path, identity={"training": {"lr": 0.1, "sizes": [1, 2]}, "name": "a"}, resume=True)
    expected = r"belongs to another run: name was 'a', is None; training.lr was 0.1, is 0.2"
    with pytest.raises(CheckpointError, match=expected):
        fit(tmp_path, identity={"training": {"lr": 0.2, "sizes": (1, 2)}}, resume=True)


def test_checkpoint_of_another_model(tmp_path):
    fit(tmp_path)
    expected = r"belongs to another model: .*'net.0.weight' of shape \(16, 8\), expected \(5, 8\)"
    with pytest.raises(CheckpointError, match=expected):
        fit(tmp_path, model=worker.Rate(5), resume=True)


def test_checkpoint_of_another_optimizer_and_method(tmp_path):
    fit(tmp_path)
    model = worker.Rate()
    parameters = list(model.parameters())
    groups = [{"params": parameters[:1]}, {"params": parameters[1:]}]
    with pytest.raises(CheckpointError, match="does not fit this run"):
        fit(tmp_path, model=model, optimizer=torch.optim.SGD(groups, lr=0.1), resume=True)
    model = worker.Rate()
    with pytest.raises(CheckpointError, match="the state is that of Plain, not PerturbedGradient"):
        fit(
            tmp_path,
            model=model,
            method=PerturbedGradient(model, worker.Noise()),
            resume=True,
        )


def test_a_broken_checkpoint_and_a_foreign_file(tmp_path):
    fit(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        fit(tmp_path, resume=True)
    files.save(path, {"w": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        fit(tmp_path, resume=True)


def test_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    """The kernel refuses bytes while a later, larger checkpoint is saved."""
    script = (
        "import sys, resource; sys.path.insert(0, sys.argv[2])\n"
        "import training_worker as worker\n"
        "from spikewvat.lab.trainer import checkpoint\n"
        "save = checkpoint.save\n"
        "def full(path, loop, position, identity):\n"
        "    if position.epoch == 3:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "    save(path, loop, position, identity)\n"
        "checkpoint.save = full\n"
        "worker.train(sys.argv[1], 'wvat', epochs=5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a"), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "CheckpointError: cannot write" in done.stderr
    assert "previous version is intact" in done.stderr
    assert files.load(tmp_path / "a" / "checkpoint.safetensors")["position"]["epoch"] == 2
    worker.train(tmp_path / "a", "wvat", epochs=5, resume=True)
    worker.train(tmp_path / "b", "wvat", epochs=5)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_unwritable_folder_is_noticed_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write into folder"):
        Trainer(tmp_path / "file" / "out", epochs=1)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": 2, "patience": 0},
        {"epochs": 2, "clip_norm": -1.0},
        {"epochs": 2, "clamp": 0.0},
    ],
)
def test_impossible_numbers(tmp_path, options):
    with pytest.raises(ValueError, match="must be above 0"):
        Trainer(tmp_path, **options)


def test_patience_without_anything_to_watch(tmp_path):
    with pytest.raises(ValueError, match="patience needs something to watch"):
        fit(tmp_path, patience=1)


def test_averaging_that_never_starts(tmp_path):
    from spikewvat.training.averaging import SWA

    model = worker.Rate()
    with pytest.raises(ValueError, match="averaging starts at epoch 2, but there are only 2"):
        fit(tmp_path, model=model, swa=SWA(model, start=2))


def test_early_stop_and_best_weights(tmp_path, monkeypatch):
    watched = iter([0.2, 0.5, 0.4, 0.5, 0.9])
    states = []

    def accuracy(loop, loader):
        states.append({k: v.clone() for k, v in loop.model.state_dict().items()})
        return next(watched)

    monkeypatch.setattr("spikewvat.lab.trainer.loop.Loop.accuracy", accuracy)
    result = fit(tmp_path, epochs=9, patience=2, watch=worker.loader())
    assert result.stopped_early
    assert [row["watched"] for row in result.history] == [0.2, 0.5, 0.4, 0.5]
    assert (result.best_epoch, result.best_accuracy) == (1, 0.5)
    best, final = (files.load(tmp_path / f"{name}.safetensors") for name in ("best", "model"))
    assert all(torch.equal(best[name], states[1][name]) for name in best)
    assert all(torch.equal(final[name], states[3][name]) for name in final)
    again = fit(tmp_path, epochs=9, patience=2, watch=worker.loader(), resume=True)
    assert len(again.history) == 4  # patience had run out before


def test_the_watched_accuracy_is_that_of_the_network_in_evaluation_mode(tmp_path):
    model = worker.Rate()
    data = worker.loader(shuffle=False, batch_size=20)
    result = fit(tmp_path, model=model, watch=data)
    model.eval()
    right = sum(int((model(x).sum(0).argmax(1) == y).sum()) for x, y in data)
    assert result.history[-1]["watched"] == right / 48


def test_loss_that_is_not_finite(tmp_path):
    calls = []

    def loss(output, labels):
        calls.append(1)
        factor = float("nan") if len(calls) == 14 else 1.0  # 6 batches an epoch
        return factor * rate_cross_entropy(output, labels)

    expected = r"after epoch 3 the .*learning rate \(now 0.1\).*checkpoint of epoch 2 is kept"
    with pytest.raises(DivergedError, match=expected):
        fit(tmp_path, epochs=5, loss=loss)
    saved = files.load(tmp_path / "checkpoint.safetensors")
    assert saved["position"]["epoch"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in saved["model"].values())


def test_weights_that_are_not_finite_and_a_loss_that_is(tmp_path):
    model = worker.Rate()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e38)
    one_batch = worker.loader(batch_size=48)
    with pytest.raises(DivergedError, match="after epoch 1 the weights are not finite"):
        fit(
            tmp_path,
            model=model,
            train=one_batch,
            optimizer=optimizer,
            loss=lambda output, labels: 1e6 * output.sum(),
        )
    assert list(tmp_path.iterdir()) == []


def test_training_data_without_batches(tmp_path):
    with pytest.raises(ValueError, match="no batches"):
        fit(tmp_path, train=worker.loader(batch_size=100, drop_last=True))


def test_clipping_bounds_the_step(tmp_path):
    model = nn.Linear(8, 3)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    one_batch = worker.loader(batch_size=48)
    fit(tmp_path, epochs=1, model=model, optimizer=optimizer, train=one_batch, clip_norm=0.01)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.01), rtol=1e-3, atol=0)


@pytest.mark.parametrize("noisy", [False, True])
def test_clamping_bounds_the_synaptic_weights_alone(tmp_path, noisy):
    model = nn.Linear(8, 3)
    with torch.no_grad():
        model.bias.fill_(2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    perturbed = PerturbedGradient(model, HSV(Gaussian(0.1))) if noisy else None
    one_batch = worker.loader(batch_size=48)
    options = {"method": perturbed, "clamp": 0.125, "train": one_batch}
    fit(tmp_path, epochs=1, model=model, optimizer=optimizer, **options)
    assert model.weight.abs().max() == 0.125
    assert model.bias.abs().min() > 0.5


def test_one_step_is_that_of_a_loop_written_out(tmp_path):
    torch.manual_seed(4)
    model, twin = nn.Linear(8, 3), nn.Linear(8, 3)
    twin.load_state_dict(model.state_dict())
    batches = worker.loader(shuffle=False)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    fit(tmp_path, model=model, optimizer=optimizer, train=batches, scheduler=scheduler)
    for rate in (1e-3, 5e-4):
        if rate == 1e-3:
            plain = torch.optim.Adam(twin.parameters(), lr=rate)
        plain.param_groups[0]["lr"] = rate
        for spikes, labels in batches:
            plain.zero_grad()
            rate_cross_entropy(twin(spikes), labels).backward()
            plain.step()
    assert torch.equal(model.weight, twin.weight)
    assert torch.equal(model.bias, twin.bias)


def test_bf16_mixed(tmp_path):
    seen = []
    model = worker.Rate()
    model.net[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    result = fit(tmp_path, model=model, precision="bf16-mixed", watch=worker.loader())
    assert set(seen) == {torch.bfloat16}
    assert result.history[1]["loss"] < result.history[0]["loss"]
    saved = files.load(tmp_path / "model.safetensors")
    assert saved["net.0.weight"].dtype == torch.float32


def test_tensorboard_events(tmp_path):
    fit(tmp_path, tensorboard=True, watch=worker.loader())
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"accuracy/validation" in events.read_bytes()


def test_augmentation_changes_training_batches_only(tmp_path):
    seen = []

    class Spy(worker.Rate):
        def forward(self, spikes):
            seen.append((self.training, spikes.max().item(), spikes.min().item()))
            return super().forward(spikes)

    def halves(spikes, *, generator):
        return spikes * 0 + 0.5

    fit(tmp_path, model=Spy(), watch=worker.loader(), augment=halves)
    assert {(high, low) for training, high, low in seen if training} == {(0.5, 0.5)}
    watched = [(high, low) for training, high, low in seen if not training]
    # The first batch that is trained on is run twice more, to see whether state survives.
    assert watched[:2] == [(0.5, 0.5)] * 2
    assert set(watched[2:]) == {(1.0, 0.0)}


def test_outputs_with_potentials(tmp_path):
    class Pair(worker.Rate):
        def forward(self, spikes):
            return super().forward(spikes), spikes

    result = fit(tmp_path, model=Pair(), watch=worker.loader())
    assert result.best_accuracy is not None


def test_each_epoch_sees_another_order_and_each_seed_too(tmp_path):
    orders = []

    class Spy(worker.Rate):
        def forward(self, spikes):
            if self.training:  # not the check of the first batch
                orders.append(spikes.sum().item())
            return super().forward(spikes)

    fit(tmp_path, model=Spy())
    assert orders[:6] != orders[6:]
    assert sum(orders[:6]) == pytest.approx(sum(orders[6:]))
    assert derived_seed(0, "epoch", 1) == derived_seed(0, "epoch", 1)
    seeds = {derived_seed(s, "epoch", e) for s in range(30) for e in range(30)}
    assert len(seeds) == 900
    assert all(0 <= s < 2**63 for s in seeds)


def test_two_processes_train_one_model(tmp_path):
    """DDP through Fabric: ranks stay bit-identical, and a resumed run repeats an uninterrupted."""
    script = (
        "import sys, os; sys.path.insert(0, sys.argv[2])\n"
        "import training_worker as worker\n"
        "from spikewvat import files\n"
        "rank = os.environ['RANK']\n"
        "kw = dict(devices=2, strategy='ddp')\n"
        "out = sys.argv[1]\n"
        "a = worker.train(f'{out}/a', 'spiking', epochs=3, **kw)\n"
        "files.save(f'{out}/rank{rank}', a.model.state_dict())\n"
        "try:\n"
        "    accuracy, calls = worker.Trainer.fit.__globals__['Loop'].accuracy, []\n"
        "    def stop(loop, loader):\n"
        "        calls.append(1)\n"
        "        if len(calls) == 2: raise KeyboardInterrupt\n"
        "        return accuracy(loop, loader)\n"
        "    worker.Trainer.fit.__globals__['Loop'].accuracy = stop\n"
        "    worker.train(f'{out}/b', 'spiking', epochs=3, **kw)\n"
        "except KeyboardInterrupt:\n"
        "    worker.Trainer.fit.__globals__['Loop'].accuracy = accuracy\n"
        "worker.train(f'{out}/b', 'spiking', epochs=3, resume=True, **kw)\n"
    )
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(path), str(tmp_path), str(Path(__file__).parent)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    zero, one = files.load(tmp_path / "rank0"), files.load(tmp_path / "rank1")
    assert all(torch.equal(zero[name], one[name]) for name in zero)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    ranks = files.load(tmp_path / "a" / "checkpoint.safetensors")["method"]
    assert not torch.equal(ranks[0]["noise"], ranks[1]["noise"])
    with pytest.raises(CheckpointError, match="written by 2 processes, now there are 1"):
        worker.train(tmp_path / "a", "spiking", epochs=3, resume=True)


def terminal(**options):
    from rich.console import Console

    return Console(file=io.StringIO(), width=120, **options)


def test_progress_on_a_terminal_and_in_a_log():
    row = {"loss": 0.25, "accuracy": 0.5, "watched": 0.75, "watching": "test", "seconds": 1.0}
    for console in (terminal(force_terminal=True), terminal(force_terminal=False)):
        totals = Totals()
        with TrainingProgress(4, 1, 2, console=console) as bar:
            for _ in range(2):
                totals.add(torch.tensor(0.25), torch.tensor(4), 8)
                bar.batch(1, totals)
            bar.epoch(1, row)
        text = console.file.getvalue()
        assert "epoch 2/4" in text
        assert "loss 0.2500  accuracy 50.0 %" in text
        assert "test 75.0 %" in text
    assert text.count("\n") == 1  # a log gets a line an epoch, no bar


def test_tables():
    console = terminal()
    print_table("Title", ["a", "b"], [["x", "1"], ["y", "2"]], console=console)
    assert "Title" in console.file.getvalue()
    assert "y" in console.file.getvalue()
