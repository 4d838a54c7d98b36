"""Tiny training runs, in a module of their own so that other processes can import them."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spikewvat.devices import Gaussian
from spikewvat.lab.trainer import Trainer, TrainingResult
from spikewvat.perturbations import GAV, SAM, Mixture, Past, Perturbation, RandomLength, Warmup
from spikewvat.training import PerturbedGradient
from spikewvat.training.averaging import SWA, decay_factor
from spikewvat.weights import Perturb, Weights, adding


class Noise(Perturbation):
    """Noise of constant size, so that these tests need no device model."""

    def plan(self, weights: Weights, grads=None, *, generator=None) -> Perturb:
        return adding(
            {k: 0.02 * torch.randn(w.shape, generator=generator) for k, w in weights.items()}
        )


class Rate(nn.Module):
    """A stateless net with batch norm and dropout over [T, B, features]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(width, 3),
        )

    def forward(self, spikes):
        return self.net(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])


def spiking() -> nn.Module:
    """A small snnTorch network."""
    from spikewvat.lab.models.snntorch import SpikingCNN

    return SpikingCNN(input_shape=(2, 6, 6), channels=(3,), kernel_size=3, classes=3)


def images() -> nn.Module:
    """A network for images of 12 x 12, with weights of several channels on both sides."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(80, 3),
    )


def time_first(batch):
    spikes, labels = zip(*batch, strict=True)
    return torch.stack(spikes, dim=1), torch.stack(labels)


def data(shape=(8,), samples=48, steps=3, seed=5) -> TensorDataset:
    """Spikes whose rate depends on the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    rate = torch.rand(3, *shape, generator=generator)[labels]
    draws = torch.rand(samples, steps, *shape, generator=generator)
    return TensorDataset((draws < rate[:, None]).float(), labels)


def loader(dataset=None, *, batch_size=8, shuffle=True, **options) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(
        dataset or data(),
        batch_size,
        shuffle=shuffle,
        generator=generator,
        collate_fn=time_first,
        **options,
    )


def train(out, kind: str = "plain", *, resume: bool = False, **options) -> TrainingResult:
    """Run one of a few kinds of training to its end."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    settings = {"epochs": 12, "seed": 7, "progress": False, "resume": resume, **options}
    trainer = Trainer(out, **settings)
    if kind == "spiking":
        model, dataset = spiking(), data((2, 6, 6))
    else:
        model, dataset = Rate(), data()
    method = swa = scheduler = None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    if kind != "plain":
        generator = torch.Generator().manual_seed(1)
        direction: Perturbation = Mixture(Noise(), SAM(0.05), 0.5)
        if kind == "past":
            past = GAV(Gaussian(0.1), alpha=0.5, source=Past(decay=0.5))
            direction = Warmup(RandomLength(Mixture(Noise(), past, 0.5)), steps=5)
        method = PerturbedGradient(model, direction, p=0.8, generator=generator)
        swa = SWA(model, start=2)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda e: decay_factor(e, horizon=settings["epochs"], ratio=0.1)
        )
    from spikewvat.spiking.losses import rate_cross_entropy

    return trainer.fit(
        model,
        loader(dataset),
        rate_cross_entropy,
        optimizer,
        watch=loader(dataset, batch_size=20, shuffle=False),
        method=method,
        swa=swa,
        scheduler=scheduler,
    )


def run(out, kind, epochs, started) -> None:
    """Body of a process that is killed at some moment."""
    started.set()
    train(out, kind, resume=True, epochs=epochs)


def nowhere() -> str:
    """Stand for the folder of a data set that needs none."""
    return "."


class TinyEvents(torch.utils.data.Dataset):
    """Events whose rate depends on the class, in place of a data set on disk."""

    def __init__(self, root, split: str, *, time_steps: int = 3, size: int = 6) -> None:
        self._data = data((2, size, size), samples=24 if split == "test" else 48, steps=time_steps)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index):
        spikes, label = self._data[index]
        return spikes.to(torch.uint8), int(label)


class TinyImages(torch.utils.data.Dataset):
    """Images around a pattern of their class, in place of a data set on disk."""

    repeatable = True

    def __init__(self, root, split: str, *, size: int = 12) -> None:
        draw = torch.Generator().manual_seed(4)
        patterns = torch.rand(3, 1, size, size, generator=draw)
        samples = 24 if split == "test" else 48
        self._labels = torch.arange(samples) % 3
        draw.manual_seed(samples)
        noise = torch.randn(samples, 1, size, size, generator=draw)
        self._images = (patterns[self._labels] + 0.3 * noise).clamp(0, 1)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index):
        return self._images[index], int(self._labels[index])
