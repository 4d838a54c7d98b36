"""Files that survive a crash: atomic writes, and nested tensors in one safetensors file.

Nothing is pickled: a file from someone else cannot run code. The structure of the saved tree
(dicts, lists, tuples, plain scalars) is stored as JSON in the metadata of the file; a flat
``dict[str, Tensor]`` becomes an ordinary safetensors file that any tool can read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from spikewvat.errors import CheckpointError, RecipeError, require

Tree: TypeAlias = Any
"""A tensor, None, bool, int, float, str, or a dict (str or int keys), list or tuple of trees."""

_OURS = "spikewvat"
"""One entry for checksum and structure: the library does not fix the order of several."""
_ENTRY = re.compile(r"[0-9a-f]{64} ")
_TEMPORARY = re.compile(r"\.(?:.+\.)?[0-9a-f]{8}\.tmp")


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Write a file completely or not at all.

    The content is written to a temporary file in the same folder, flushed to disk, and then moved
    over the old file, which stays intact if anything fails before that.

    Args:
        path: File to write; missing parent folders are created.
        content: Bytes, or text to encode as UTF-8.

    Raises:
        CheckpointError: If the folder is not writable or the disk is full; an existing file is
            unchanged.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}{_ending()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        kept = "The previous version is intact. " if path.exists() else ""
        raise CheckpointError(
            f"cannot write {str(path)!r}: {error.strerror or error}. {kept}"
            "Free some space or choose another folder, then run again."
        ) from error


def _ending() -> str:
    """Return the end of a temporary file's name."""
    return f".{secrets.token_hex(4)}.tmp"


def _sync_folder(folder: Path) -> None:
    """Flush the directory entry; not every file system can, and the content is safe without it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def check_writable(folder: Path | str) -> None:
    """Raise CheckpointError unless a folder is writable; create it if it is missing."""
    folder = Path(folder)
    probe = folder / _ending()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot write into folder {str(folder)!r}: {error.strerror or error}. "
            "Choose a writable folder with --out."
        ) from error


_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def check_name(name: str, what: str) -> None:
    """Raise RecipeError unless a name can be that of a file in a folder, on every system.

    Args:
        name: A name that somebody else may have written.
        what: What it names, for the message.
    """
    bad = _FORBIDDEN.search(name)
    if bad is not None:
        problem = f"holds {bad.group()!r}"
    elif not name.strip(" .") or name[-1] in " ." or name[0] in " .":
        problem = "is empty, or begins or ends with a dot or a space"
    elif _RESERVED.fullmatch(name):
        problem = "is reserved by Windows"
    elif len(name.encode(errors="replace")) > 150:
        problem = "is longer than 150 bytes"
    elif not name.isprintable():
        problem = "holds a character that is not printed"
    else:
        return
    raise RecipeError(
        f"{what} {name!r} cannot name a file: it {problem}. Take letters, digits, '-' and '_'."
    )


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writes that were interrupted, such as by a kill."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def read_toml(path: Path | str) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        RecipeError: If it is missing or not valid TOML text.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read {str(path)!r}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{str(path)!r} is not a TOML file: {error}.") from error


def write_toml(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write plain nested values as TOML, atomically.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    library = require("tomli_w", extra="cli", purpose="writing TOML")
    write_atomic(path, library.dumps(content))


def gunzip(content: bytes, *, limit: int) -> bytes:
    """Unpack gzip, up to a size limit.

    Args:
        content: The compressed file.
        limit: Largest unpacked size, in bytes.

    Raises:
        OSError, EOFError, zlib.error: If the content is damaged.
        ValueError: If it unpacks to more than the limit.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(limit + 1)
    if len(unpacked) > limit:
        raise ValueError(f"it unpacks to more than {limit / 2**20:g} MiB")
    return unpacked


def save(path: Path | str, tree: Tree) -> None:
    """Save nested tensors and plain values as one safetensors file, atomically, with a checksum.

    Args:
        path: File to write.
        tree: Values to save; tensors are copied to the CPU, tied ones separately.

    Raises:
        CheckpointError: If the file cannot be written.
        TypeError: If the tree holds a value that is neither a tensor nor plain.
    """
    library = require("safetensors.torch", extra="cli", purpose="saving weights")
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_encode(tree, "", tensors))
    entry = f"{_checksum(structure, tensors)} {structure}"
    content = library.save(tensors, metadata={_OURS: entry})
    write_atomic(path, content)


def load(path: Path | str) -> Tree:
    """Load a file written by :func:`save`, or the tensors by name of any other safetensors file.

    A file written by :func:`save` is loaded only if its checksum matches; other files have none.

    Args:
        path: File to read.

    Returns:
        An equal tree, bit for bit, with tensors on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged or not a safetensors file.
    """
    library = require("safetensors", extra="cli", purpose="reading weights")
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}. Train first, or check the path.")
    try:
        with library.safe_open(str(path), framework="pt") as file:
            # Cloned: the library maps the file, and what is loaded must outlive it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        # A key that is damaged itself is no reason to take the file for another's.
        if _OURS not in metadata and not any(map(_ENTRY.match, metadata.values())):
            return tensors
        checksum, _, structure = metadata[_OURS].partition(" ")
        if checksum != _checksum(structure, tensors):
            raise ValueError("its checksum is wrong")
        return _decode(json.loads(structure), tensors)
    # A damaged header makes the library and torch fail in many ways.
    except Exception as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{str(path)!r} is damaged or not a safetensors file ({reason}). "
            "Restore it from a copy, or delete it and train again."
        ) from error


def _checksum(structure: str, tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of everything from which :func:`load` restores the tree."""
    digest = hashlib.sha256(structure.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Load the weights of a network from a safetensors or a torch file.

    Torch files are read without running any code in them (``weights_only``). From a training
    checkpoint, the weights under ``"model"`` or ``"state_dict"`` are used; the prefix
    ``"module."`` of distributed runs is dropped.

    Args:
        path: A ``.safetensors`` file, or any file written by ``torch.save``.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: If the file is missing or damaged, or holds no tensors by name.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        content = load(path)
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        # Damaged files fail in the archive, the unpickler or torch, in many ways.
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].partition(". ")[0]
            raise CheckpointError(
                f"cannot read the weights {str(path)!r}: {reason}. Expected a safetensors file, or "
                "a state_dict written by torch.save."
            ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        raise CheckpointError(
            f"{str(path)!r} holds no tensors by name. Expected a safetensors file, or a state_dict "
            "written by torch.save."
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _all_tensors(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in content.values())


def load_state(module: torch.nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load weights into a model, or raise an error that lists differing names and shapes.

    Args:
        module: Model to load into; untouched if anything differs.
        state: Tensors by name, as in ``module.state_dict()``.
        source: Where the tensors come from, for the message.

    Raises:
        CheckpointError: If a name is missing or unknown, or a shape differs.
    """
    expected = module.state_dict()
    problems = [f"lacks {name!r}" for name in expected if name not in state]
    problems += [f"has {name!r}, which the model lacks" for name in state if name not in expected]
    problems += [
        f"has {name!r} of shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 6} more differences" if len(problems) > 6 else ""
        raise CheckpointError(
            f"{source} belongs to another model: it {'; it '.join(problems[:6])}{more}. "
            "Use the recipe that it was trained with."
        )
    module.load_state_dict(dict(state))


def _encode(tree: Tree, path: str, tensors: dict[str, Tensor]) -> Tree:
    """Return the JSON skeleton of a tree and collect its tensors by their path."""
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Tensor):
        name = path or "tensor"
        while name in tensors:  # {"a": {"b": x}, "a.b": y}
            name += "'"
        tensors[name] = tree.detach().cpu().contiguous().clone()
        return {"tensor": name}
    dot = f"{path}." if path else ""
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise TypeError(f"cannot save key {key!r} at {path!r}: keys must be str or int.")
        items = [[key, _encode(value, f"{dot}{key}", tensors)] for key, value in tree.items()]
        return {"dict": items}
    if isinstance(tree, list | tuple):
        items = [_encode(value, f"{dot}{index}", tensors) for index, value in enumerate(tree)]
        return {"tuple": items} if isinstance(tree, tuple) else items
    raise TypeError(
        f"cannot save {type(tree).__name__} at {path!r}: expected a tensor, None, bool, int, "
        "float, str, or dicts, lists and tuples of those."
    )


def _decode(structure: Tree, tensors: dict[str, Tensor]) -> Tree:
    if isinstance(structure, list):
        return [_decode(value, tensors) for value in structure]
    if not isinstance(structure, dict):
        return structure
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(value, tensors) for value in content)
    if kind == "dict":
        return {key: _decode(value, tensors) for key, value in content}
    raise ValueError(f"unknown structure {kind!r}")
