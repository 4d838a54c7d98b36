"""Networks whose weights are spread over processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn

from spikewvat import WVAT, Evaluator, Gaussian
from spikewvat.errors import UnsupportedModelError


@pytest.fixture
def mesh(tmp_path):
    init_device_mesh = pytest.importorskip("torch.distributed.device_mesh").init_device_mesh
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


def test_shards_are_refused_by_name(mesh):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    wvat = WVAT(net, Gaussian(0.1))
    fsdp.fully_shard(net, mesh=mesh)
    x, y = torch.rand(5, 6), torch.arange(5) % 3
    with pytest.raises(ValueError, match=r"'0\.weight' is spread over processes.*DistributedData"):
        wvat.backward(lambda: nn.functional.cross_entropy(net(x), y))
    with pytest.raises(ValueError, match=r"'0\.weight' is spread over processes"):
        Evaluator(net, [(x, y)]).chips(Gaussian(0.1), chips=2)


@pytest.mark.filterwarnings("ignore:FSDP:UserWarning")
def test_the_older_way_to_shard_is_refused(mesh):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    net = fsdp.FullyShardedDataParallel(
        nn.Sequential(nn.Linear(6, 4)), use_orig_params=True, device_id=torch.device("cpu")
    )
    with pytest.raises(UnsupportedModelError, match="FullyShardedDataParallel.*whole weights"):
        WVAT(net, Gaussian(0.1))
