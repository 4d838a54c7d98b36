"""Averages, schedules, and batch norm on networks that hold state."""

from __future__ import annotations

import pytest
import reference
import torch
from model_cases import ADAPTERS
from torch import nn
from torch.nn.utils import prune

from spikewvat.adapters import adapter_for
from spikewvat.adapters.copying import copied
from spikewvat.errors import DataError
from spikewvat.lab.models.snntorch import SpikingCNN
from spikewvat.training.averaging import SWA, decay_factor, refresh_batch_norm, step_factor


def test_running_mean_of_the_specification():
    model = nn.Linear(1, 1, bias=False)
    swa = SWA(model)
    seen = []
    for epoch, value in enumerate([1.0, 4.0, 2.0, 9.0]):
        nn.init.constant_(model.weight, value)
        swa.update(epoch)
        seen.append(swa.model.weight.item())
    assert seen == pytest.approx([1, 2.5, 2.3333333, 4.0])
    assert seen == pytest.approx(reference.running_mean([1.0, 4.0, 2.0, 9.0]))
    assert swa.count == 4


def test_epochs_before_the_start_are_left_out():
    model = nn.Linear(1, 1, bias=False)
    swa = SWA(model, start=2)
    for epoch, value in enumerate([100.0, 100.0, 2.0, 4.0]):
        nn.init.constant_(model.weight, value)
        swa.update(epoch)
    assert swa.model.weight.item() == 3.0


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_live_networks_of_every_framework(case):
    """Copying and averaging raise on a live network unless its state is reset."""
    model = case.make()
    case.run(model, case.input()).sum().backward()
    swa = SWA(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(3):
        adapter_for(model).reset_state(model)
        case.run(model, case.input()).square().sum().backward()
        optimizer.step()
        swa.update(epoch)
    case.run(swa.model, case.input())
    swa.update(3)
    saved = swa.state_dict()
    other = SWA(case.make())
    other.load_state_dict(saved)
    pairs = zip(swa.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert other.count == 4


def test_batch_norm_is_refreshed_without_carrying_state():
    torch.manual_seed(0)
    net = SpikingCNN(
        input_shape=(2, 8, 8), channels=(3,), kernel_size=3, classes=4, batch_norm=True
    )
    batches = [(torch.rand(4, 2, 2, 8, 8).round(), torch.zeros(2)) for _ in range(3)]
    swa = SWA(net)
    swa.update(0)
    model = swa.finish(batches).eval()
    means = []
    for x, _ in batches:
        y = net.convs[0](x.flatten(0, 1))
        means.append(y.mean((0, 2, 3)))
    torch.testing.assert_close(model.norms[0].running_mean, torch.stack(means).mean(0))
    assert model.norms[0].momentum == 0.1
    assert not model.training


def test_state_is_reset_between_batches_of_the_refresh():
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif = snn.Leaky(beta=0.9, init_hidden=True)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            self.lif(x)
            return self.norm(self.lif.mem)

    net = Net()
    batch = torch.full((2, 3), 0.5)
    refresh_batch_norm(net, [batch, batch, batch])
    torch.testing.assert_close(net.norm.running_mean, torch.full((3,), 0.5))


def test_refresh_restores_mode_and_momentum_after_an_exception():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()

    def broken():
        yield torch.randn(4, 3)
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        refresh_batch_norm(net, broken())
    assert net[1].momentum == 0.1
    assert not net.training
    assert not net._forward_pre_hooks


def with_two_norms():
    net = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4)
    )
    net.train()[1].eval()  # frozen
    return net


@pytest.mark.parametrize("how", ["refresh", "swa"])
def test_frozen_batch_norm_stays_frozen(how):
    net, batches = with_two_norms(), [torch.randn(16, 3) + 3 for _ in range(3)]
    before = [buffer.clone() for buffer in net[1].buffers()]
    if how == "refresh":
        refresh_batch_norm(net, batches)
    else:
        swa = SWA(net)
        swa.update(0)
        net = swa.finish(batches)
    assert [m.training for m in net] == [True, False, True, True, True]
    assert all(torch.equal(a, b) for a, b in zip(net[1].buffers(), before, strict=True))
    assert int(net[4].num_batches_tracked) == 3


def test_a_model_in_evaluation_mode_has_no_frozen_layers():
    net = with_two_norms().eval()
    refresh_batch_norm(net, [torch.randn(16, 3) + 3])
    assert int(net[1].num_batches_tracked) == int(net[4].num_batches_tracked) == 1
    assert not any(m.training for m in net.modules())


@pytest.mark.parametrize("loader", [[], iter(())], ids=["empty", "used up"])
def test_a_loader_without_batches_is_an_error_and_changes_nothing(loader):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    net(torch.randn(8, 3) + 5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(DataError, match="yields nothing"):
        refresh_batch_norm(net, loader)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)

    def forward(self, values, mask=None):
        return self.norm(self.fc(values if mask is None else values * mask))


def test_batches_as_mappings():
    torch.manual_seed(0)
    net, x, mask = Named(), torch.randn(8, 3), torch.tensor([1.0, 0.0, 1.0])
    refresh_batch_norm(net, [{"values": x, "mask": mask, "labels": torch.zeros(8)}])
    torch.testing.assert_close(net.norm.running_mean, net.fc(x * mask).mean(0))
    with pytest.raises(DataError, match=r"'x', 'y'.*\(values, mask\)"):
        refresh_batch_norm(net, [{"x": x, "y": x}])
    with pytest.raises(DataError, match="a batch is a str"):
        refresh_batch_norm(net, ["abc"])


@pytest.mark.parametrize("computed", ["prune", "weight norm"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_networks_with_computed_weights_are_averaged(computed):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    if computed == "prune":
        prune.l1_unstructured(net[0], "weight", amount=0.5)
    else:
        nn.utils.weight_norm(net[2])
    x = torch.randn(5, 3)
    net(x).sum().backward()
    swa = SWA(net)
    name = "0.weight_orig" if computed == "prune" else "2.weight_v"
    seen = []
    for epoch in range(3):
        with torch.no_grad():
            net.get_parameter(name).add_(0.5)
        swa.update(epoch)
        seen.append(net.get_parameter(name).detach().clone())
    torch.testing.assert_close(swa.model.get_parameter(name), torch.stack(seen).mean(0))
    twin = copied(swa.model)
    torch.testing.assert_close(twin(x), swa.model(x))


def test_schedule_of_the_specification():
    sgd = [0.01 * decay_factor(e, horizon=200, ratio=0.01) for e in (0, 100, 140, 180, 199)]
    assert sgd == pytest.approx([0.01, 0.01, 0.00505, 1e-4, 1e-4])
    swa = [0.01 * decay_factor(e, horizon=150, ratio=0.5) for e in (75, 100, 120, 135, 180)]
    assert swa == pytest.approx([0.01, 0.0079167, 0.00625, 0.005, 0.005], abs=1e-7)


def test_impossible_values():
    with pytest.raises(ValueError, match="start must be an epoch of at least 0, got -1"):
        SWA(nn.Linear(1, 1), start=-1)
    with pytest.raises(ValueError, match="horizon must be at least 1 epoch, got 0"):
        decay_factor(0, horizon=0, ratio=0.1)
    with pytest.raises(ValueError, match="horizon must be at least 1 epoch, got 0"):
        step_factor(0, horizon=0)
    with pytest.raises(ValueError, match="ratio must be at least 0, got -0.1"):
        decay_factor(0, horizon=1, ratio=-0.1)
