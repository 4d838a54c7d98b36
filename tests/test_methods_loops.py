"""Every training method inside the reference loop and the fine-tuning loop."""

from __future__ import annotations

import pytest
import torch
import training_worker as worker
from method_cases import METHODS
from torch import nn

from spikewvat.conversion import convert, finetune
from spikewvat.lab.trainer import Trainer
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.training.methods import NoiseInjection, ParameterAdversary

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda case: case.name)


def fit(out, method, epochs, *, resume=False):
    torch.manual_seed(0)
    model = worker.Rate()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    trainer = Trainer(out, epochs=epochs, progress=False, resume=resume)
    perturbed = method.make(model, optimizer, p=0.9)
    trainer.fit(model, worker.loader(), rate_cross_entropy, optimizer, method=perturbed)
    return (out / "model.safetensors").read_bytes()


@every_method
def test_a_run_that_is_resumed_ends_alike(tmp_path, method):
    whole = fit(tmp_path / "whole", method, 3)
    fit(tmp_path / "parts", method, 2)
    assert fit(tmp_path / "parts", method, 3, resume=True) == whole


def clipped(model):
    """Whether in every layer several weights share the largest magnitude."""
    weights = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return all(int((w.abs() == w.abs().max()).sum()) > 2 for w in weights)


def test_weights_are_clipped_after_the_step(tmp_path):
    model = worker.Rate()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Trainer(tmp_path, epochs=1, progress=False).fit(
        model,
        worker.loader(),
        rate_cross_entropy,
        optimizer,
        method=NoiseInjection(model, clip_sigmas=1.0),
    )
    assert clipped(model)


@pytest.mark.parametrize("kind", [NoiseInjection, ParameterAdversary])
def test_fine_tuning_of_a_converted_network(kind):
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    snn = convert(ann, [torch.rand(8, 6)], time_steps=4)
    settings = {"clip_sigmas": 1.0} if kind is NoiseInjection else {}
    optimizer = torch.optim.SGD(snn.parameters(), lr=0.01)
    batch = (torch.rand(8, 6), torch.arange(8) % 3)
    finetune(snn, [batch], epochs=2, method=kind(snn, **settings), optimizer=optimizer)
    assert clipped(snn) is (kind is NoiseInjection)
