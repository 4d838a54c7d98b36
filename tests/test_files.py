"""Saved trees come back bit for bit; a write that fails leaves the old file; nothing is pickled."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikewvat import files
from spikewvat.errors import CheckpointError
from spikewvat.lab.recipes.lock import alone_in


def same(a, b):
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
        )
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


TENSORS = [
    torch.tensor(3.5),
    torch.tensor([1.0, -0.0, float("nan"), float("inf")]),
    torch.randn(2, 3).to(torch.bfloat16),
    torch.randn(2, 3, dtype=torch.float64).t(),
    torch.arange(5, dtype=torch.uint8),
    torch.tensor([True, False]),
    torch.empty(0, 4),
    torch.tensor(7),
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(TENSORS)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(), st.integers()), inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_any_tree_comes_back_bit_for_bit(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "tree.safetensors"
    files.save(path, tree)
    assert same(tree, files.load(path))


def test_colliding_paths_stay_apart(tmp_path):
    tree = {"a": {"b": torch.tensor(1.0)}, "a.b": torch.tensor(2.0)}
    files.save(tmp_path / "x", tree)
    assert same(tree, files.load(tmp_path / "x"))


def test_a_state_dict_becomes_an_ordinary_safetensors_file(tmp_path):
    from safetensors.torch import load_file, save_file

    model = torch.nn.Linear(3, 2)
    files.save(tmp_path / "m.safetensors", model.state_dict())
    plain = load_file(tmp_path / "m.safetensors")
    assert set(plain) == {"weight", "bias"}
    assert torch.equal(plain["weight"], model.weight)
    save_file({"w": torch.ones(2)}, tmp_path / "theirs.safetensors")
    assert same(files.load(tmp_path / "theirs.safetensors"), {"w": torch.ones(2)})


def test_an_optimizer_state_comes_back(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    files.save(tmp_path / "o", optimizer.state_dict())
    assert same(optimizer.state_dict(), files.load(tmp_path / "o"))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": [object()]}, r"cannot save object at 'a.0'"),
        ({(1, 2): 3}, r"keys must be str or int"),
        ({True: 3}, r"keys must be str or int"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path, tree, message):
    with pytest.raises(TypeError, match=message):
        files.save(tmp_path / "x", tree)
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"no file .*gone.*Train first"):
        files.load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_file(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    files.save(path, {"w": torch.ones(10)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        files.load(path)


def test_structure_that_names_a_missing_tensor(tmp_path):
    from safetensors.torch import save_file

    structure = json.dumps({"tensor": "gone"})
    metadata = {"spikewvat": f"{files._checksum(structure, {'w': torch.ones(1)})} {structure}"}
    save_file({"w": torch.ones(1)}, tmp_path / "x", metadata=metadata)
    with pytest.raises(CheckpointError, match="gone"):
        files.load(tmp_path / "x")


def test_every_flipped_bit_is_found(tmp_path):
    tree = {"w": torch.ones(3, dtype=torch.float16), "n": (1, "a"), "empty": torch.ones(0)}
    path = tmp_path / "x.safetensors"
    files.save(path, tree)
    intact = path.read_bytes()
    header = 8 + int.from_bytes(intact[:8], "little")
    padding = header - len(intact[:header].rstrip())
    for bit in range(8 * len(intact)):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        if header - padding <= bit // 8 < header:
            continue  # one blank for another may be read
        with pytest.raises(CheckpointError, match="Restore it from a copy"):
            files.load(path)


def test_files_of_others_have_no_checksum(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "x", metadata={"format": "pt"})
    assert same({"w": torch.ones(2)}, files.load(tmp_path / "x"))


def test_a_packed_file_that_explodes_is_refused():
    content = gzip.compress(bytes(10_000))
    assert files.gunzip(content, limit=10_000) == bytes(10_000)
    with pytest.raises(ValueError, match="unpacks to more than"):
        files.gunzip(content, limit=9_999)


def test_a_pickle_is_refused(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="damaged or not a safetensors file"):
        files.load(tmp_path / "x.safetensors")


def test_failed_write_keeps_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    files.write_atomic(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CheckpointError, match=r"No space left on device.*previous version is intact.*Free"
    ):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_kernel_refusing_bytes_keeps_the_old_file(tmp_path):
    """The same with the kernel itself refusing, as on a full disk: a limit on file sizes."""
    path = tmp_path / "x.safetensors"
    files.save(path, {"w": torch.ones(10)})
    script = (
        "import sys, torch\nfrom spikewvat import files\n"
        "files.save(sys.argv[1], {'w': torch.zeros(100_000)})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 1
    assert "CheckpointError: cannot write" in done.stderr
    assert same(files.load(path), {"w": torch.ones(10)})
    assert list(tmp_path.iterdir()) == [path]


def test_killed_while_writing_leaves_a_whole_file(tmp_path):
    """SIGKILL in a loop of saves: what lies there is always one complete version."""
    path = tmp_path / "x.safetensors"
    script = (
        "import sys, torch\nfrom spikewvat import files\nn = 0\n"
        "while True:\n"
        "    n += 1\n    files.save(sys.argv[1], {'n': n, 'w': torch.full((300_000,), float(n))})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)])
    try:
        while not path.exists():
            time.sleep(0.01)
            assert process.poll() is None
        time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    tree = files.load(path)
    assert tree["n"] >= 1
    assert bool((tree["w"] == tree["n"]).all())


def test_what_killed_writes_have_left_is_removed(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as m:  # nothing runs any more in a process that is killed
        m.setattr(files.os, "fsync", killed)
        m.setattr(files.Path, "unlink", lambda *_, **__: None)
        with pytest.raises(Killed):
            files.write_atomic(tmp_path / "result.json", "half")
        files.check_writable(tmp_path)
    mine = [tmp_path / ".notes.tmp", tmp_path / "result.json.0123abcd.tmp", tmp_path / ".x"]
    for path in mine:
        path.touch()
    assert len(list(tmp_path.iterdir())) == 2 + len(mine)
    with alone_in(tmp_path):
        pass
    left = {path for path in tmp_path.iterdir() if path.name != ".train.lock"}
    assert left == set(mine)


def test_new_files_have_the_usual_permissions(tmp_path):
    files.write_atomic(tmp_path / "x", b"1")
    (tmp_path / "y").write_bytes(b"1")
    mode = stat.S_IMODE((tmp_path / "x").stat().st_mode)
    assert mode == stat.S_IMODE((tmp_path / "y").stat().st_mode)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write into folder .*--out"):
        files.check_writable(tmp_path / "file" / "out")
    files.check_writable(tmp_path / "new" / "out")
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_weights_of_another_model_are_named_and_nothing_is_loaded():
    model = torch.nn.Linear(3, 2)
    before = model.weight.clone()
    state = {"weight": torch.zeros(2, 4), "fc.weight": torch.zeros(1)}
    expected = (
        r"'x' belongs to another model: it lacks 'bias'; it has 'fc.weight', which the model "
        r"lacks; it has 'weight' of shape \(2, 4\), expected \(2, 3\)"
    )
    with pytest.raises(CheckpointError, match=expected):
        files.load_state(model, state, source="'x'")
    assert torch.equal(model.weight, before)
    files.load_state(model, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}, source="x")
    assert torch.equal(model.weight, torch.ones(2, 3))


def test_many_differences_are_cut_short():
    with pytest.raises(CheckpointError, match="and 5 more differences"):
        files.load_state(torch.nn.Module(), {str(i): torch.zeros(1) for i in range(11)}, source="x")


# Weights of other programs.


def test_weights_of_torch_files(tmp_path):
    state = {"a.weight": torch.arange(3.0), "b": torch.ones(2, 2)}
    wrapped = {"module." + name: tensor for name, tensor in state.items()}
    for content in (state, {"state_dict": wrapped, "epoch": 7}, {"model": state}):
        torch.save(content, tmp_path / "w.pth")
        read = files.load_weights(tmp_path / "w.pth")
        assert list(read) == list(state)
        assert all(torch.equal(read[name], state[name]) for name in state)
    files.save(tmp_path / "w.safetensors", state)
    assert torch.equal(files.load_weights(tmp_path / "w.safetensors")["b"], state["b"])


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it was run')",))


def test_files_without_weights_are_errors_and_run_nothing(tmp_path):
    path = tmp_path / "w.pth"
    for content in (Evil(), {"a": Evil()}):
        torch.save(content, path)
        with pytest.raises(
            CheckpointError, match=r"cannot read the weights '.*w.pth': Weights only"
        ):
            files.load_weights(path)
    for content in ([1, 2], {}, {"a": 1}, torch.ones(2)):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"w.pth' holds no tensors by name. Expected a"):
            files.load_weights(path)
    for content in (b"", b"no weights", b"PK\x03\x04half"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cannot read the weights '.*w.pth'"):
            files.load_weights(path)
    with pytest.raises(CheckpointError, match=r"gone.pth': .*No such file"):
        files.load_weights(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match=r"there is no file .*gone.safetensors"):
        files.load_weights(tmp_path / "gone.safetensors")
