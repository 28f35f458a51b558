"""Weights files: read from anyone, so that only data is taken from them, never code; and written.

What an export of ours records of its net lies as JSON beside the tensors, under :data:`ABOUT`.
"""

import hashlib
import io
import json
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from resnet_repro.exits import one_line
from resnet_repro.training import CheckpointError

LARGEST_FILE = 2**30  # bytes; ResNet-152 with its optimizer's state takes half of that
ABOUT = "resnet_repro"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# What training scripts keep beside the weights: harmless, and yet more than data.
COMPANIONS = ("argparse.", "omegaconf.", "pathlib.", "types.SimpleNamespace", "numpy.", "easydict.")


class WeightsError(CheckpointError):
    """A weights file that is refused; the message gives the reason in one line."""


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds; ``about`` is what an export of ours records, else ``None``."""

    path: Path
    sha256: str
    bytes: int
    content: Mapping[str, Any]
    about: Mapping[str, Any] | None


@contextmanager
def refusals_of(path: Path) -> Iterator[None]:
    """Re-raise a ValueError, the reason of a refusal, as the WeightsError of a file."""
    try:
        yield
    except ValueError as error:
        raise WeightsError(f"{path}: {one_line(str(error), 400)}") from error


def read(path: Path) -> WeightsFile:
    """Read a file of ``torch.save`` (``weights_only=True``, always) or of safetensors.

    The digest is that of the bytes which were loaded. WeightsError: unreadable, larger than
    ``LARGEST_FILE`` packed or unpacked, damaged, or holding anything but data, which is named.
    """
    with refusals_of(path):
        try:
            if not path.is_file():
                found = path.exists() or path.is_symlink()
                raise ValueError("not a regular file" if found else "no such file")
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        if len(data) > LARGEST_FILE:
            raise ValueError(f"larger than {LARGEST_FILE} bytes, refused")
        safe = path.suffix == ".safetensors"
        content, about = _load_safetensors(data) if safe else _load_pickle(data)
        if not isinstance(content, Mapping):
            raise ValueError(f"holds a {type(content).__name__}, expected a dict of tensors")
        try:
            values = json.loads(about) if isinstance(about, str) else None
        except (ValueError, RecursionError):
            values = None
    described = values if isinstance(values, dict) else None
    return WeightsFile(path, hashlib.sha256(data).hexdigest(), len(data), content, described)


def packed(state: Mapping[str, Tensor], about: Mapping[str, Any], form: str) -> bytes:
    """Return the bytes of a file of ``state`` with ``about`` as its metadata."""
    # As any program lays tensors out; ours lie channels last in memory.
    tensors = OrderedDict(
        (name, value.detach().cpu().contiguous()) for name, value in state.items()
    )
    text = json.dumps(about)
    if form == "safetensors":
        return safetensors.torch.save(tensors, metadata={ABOUT: text})
    # torch's own table of modules belongs to every state dict; load_state_dict ignores entries
    # it does not know.
    tensors._metadata = OrderedDict({"": {"version": 1, ABOUT: text}})  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def state_dict_of(content: Mapping[str, Any], name: str | None) -> tuple[str, Mapping[str, Any]]:
    """Name and state dict, of that name or the only one; ValueError lists those there are."""
    found = _state_dicts(content)
    listed = one_line(", ".join(key or "the file itself" for key in found), 300)
    if not found:
        raise ValueError("holds no state dict, no tensors with names in ...weight")
    if name is not None and name not in found:
        raise ValueError(f"weights_key={one_line(name)}: no state dict; there is {listed}")
    if name is None and len({id(state) for state in found.values()}) > 1:
        raise ValueError(f"holds several state dicts; choose one with weights_key=...: {listed}")
    chosen = next(iter(found)) if name is None else name
    return chosen, found[chosen]


def _state_dicts(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """State dicts, with a tensor ``...weight``, by names like ``model.net``; ``''``: the file."""
    found: dict[str, Mapping[str, Any]] = {}
    waiting, seen = deque([("", content)]), set()
    while waiting:
        name, place = waiting.popleft()
        if id(place) in seen:  # a dict may hold itself, or one state dict have two names
            if any(place is state for state in found.values()):
                found[name] = place
            continue
        seen.add(id(place))
        tensors = (str(key) for key, value in place.items() if isinstance(value, Tensor))
        if any(key.rpartition(".")[2] == "weight" for key in tensors):
            found[name] = place
            continue
        inside = ((key, value) for key, value in place.items() if isinstance(value, Mapping))
        waiting.extend((f"{name}.{key}".lstrip("."), value) for key, value in inside)
    return found


def checked_tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, if they can be weights.

    ValueError: an entry is no plain tensor on the CPU, is not floating (but for counters of
    batches), holds NaN or infinity in float32, is a negative variance, or claims more than
    ``LARGEST_FILE`` bytes by its shape.
    """
    claimed = 0
    for name, value in content.items():
        label, last = one_line(str(name), 80), str(name).rpartition(".")[2]
        if (
            not isinstance(value, Tensor)
            or (value.layout, value.device.type) != (torch.strided, "cpu")
            or (value.is_quantized or value.is_complex())
        ):
            raise ValueError(f"{label} is no plain tensor of numbers")
        claimed += value.numel() * value.element_size()
        if claimed > LARGEST_FILE:  # a few stored numbers can claim to be any shape
            raise ValueError(f"claims more than {LARGEST_FILE} bytes of weights")
        if last in ("num_batches_tracked", "n_averaged"):
            continue  # counts, which no net in evaluation mode reads
        if value.dtype not in FLOATS:
            raise ValueError(f"{label} is {value.dtype}; expected floating-point weights")
        if not bool(torch.isfinite(value.float()).all()):
            raise ValueError(f"{label} holds values that are not finite")
        if last == "running_var" and bool((value < 0).any()):
            raise ValueError(f"{label} is a variance and holds negative values")
    return {str(name): value for name, value in content.items()}


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes of a state dict, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load_safetensors(data: bytes) -> tuple[Any, object]:
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return safetensors.torch.load(data), header.get("__metadata__", {}).get(ABOUT)
    except Exception as error:  # a made-up file can fail in any way
        name = type(error).__name__
        raise ValueError(f"not a safetensors file, or damaged ({name})") from error


def _load_pickle(data: bytes) -> tuple[Any, object]:
    if data.startswith(b"PK\x03\x04"):  # the format of torch before 1.6 packs nothing
        try:  # a small archive may unpack into a large one
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except Exception as error:  # BadZipFile, and struct or Unicode errors of broken tables
            raise ValueError("truncated or damaged archive") from error
        if unpacked > LARGEST_FILE:
            raise ValueError(f"unpacks to {unpacked} bytes, more than {LARGEST_FILE}; refused")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on how to load files less safely
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        reason = f"not a weights file, or damaged ({type(error).__name__})"
        if "TorchScript" in str(error):
            reason = "a TorchScript program; save its state_dict()"
        elif names := _refused_globals(data, str(error)):
            listed = one_line(", ".join(names[:3]))
            reason = f"refused, holds more than data: {listed}{_advice(names)}"
        raise ValueError(reason) from error
    # A state dict carries a table of its modules; an export of ours has one entry more.
    table = getattr(content, "_metadata", None)
    root = table.get("") if isinstance(table, Mapping) else None
    return content, root.get(ABOUT) if isinstance(root, Mapping) else None


def _advice(names: list[str]) -> str:
    """How to save again a file that holds these classes beside or instead of tensors."""
    if any(name.startswith("torch.nn.modules.") for name in names):
        return "; a whole model: load it where its code is and save model.state_dict()"
    if all(name.startswith(COMPANIONS) for name in names):
        return (
            "; if you trust the file, save its weights alone: c = torch.load(FILE, "
            "weights_only=False), then torch.save(c['model'], NEW) with the key they are under"
        )
    return ""


def _refused_globals(data: bytes, message: str) -> list[str]:
    """Name the functions and classes a file wanted; empty where it failed for another reason."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data)))
    except Exception:  # not an archive, or a broken one
        if found := re.search(r"GLOBAL ([\w.]+)", message):
            return [found[1]]
        return [name for name in _globals(data) if not name.startswith(("torch.", "collections."))]


def _globals(data: bytes) -> Iterator[str]:
    """Functions and classes named in a row of pickles, found without running them."""
    stream, texts = io.BytesIO(data), [""]
    try:
        while stream.tell() < len(data):
            for code, argument, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST"):
                    yield str(argument).replace(" ", ".")
                elif code.name == "STACK_GLOBAL":
                    yield ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts = [texts[-1], argument]
    except Exception:  # what follows is no pickle
        return
