"""Other people's state dicts, renamed to ours. Dict in, dict out: reading files is not done here.

================  =================================================================================
``akamaster``     CIFAR nets of akamaster/pytorch_resnet_cifar10: a dict that holds ``state_dict``,
                  keys with or without ``module.``; A with zero channels on both sides
``torchvision``   ``resnet18`` to ``resnet152``: option B, bottlenecks with the stride in the 3x3
================  =================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from resnet_repro.models.spec import BOTTLENECK_DEPTHS, IMAGENET_BLOCKS, NetSpec

FORMATS = ("akamaster", "torchvision")

_TENSOR = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
# What the two call the head and the layers of a projection.
_HEAD = {"akamaster": "linear", "torchvision": "fc"}
_PROJECTION = {"akamaster": "shortcut", "torchvision": "downsample"}


class StateDictError(ValueError):
    """A state dict that is not what its format or its net says; the message names the keys."""


def net_of(fmt: str, state: Mapping[str, Any]) -> tuple[NetSpec, int]:
    """Return the net that a state dict belongs to, and its number of classes.

    Raises:
        StateDictError: the keys are not those of a net of this format.
    """
    keys = _unwrap(fmt, state)
    head = f"{_HEAD[fmt]}.weight"
    blocks: dict[int, set[int]] = {}
    for key in keys:
        if found := re.match(r"layer(\d+)\.(\d+)\.", key):
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    projects = any(f".{_PROJECTION[fmt]}." in key for key in keys)
    if head not in keys or keys[head].ndim != 2:
        raise StateDictError(f"these are no {fmt} weights: missing {head}")
    classes = keys[head].shape[0]
    if fmt == "akamaster" and len(counts) == 3 and len(set(counts)) == 1:
        depth = 6 * counts[0] + 2
        option_a = NetSpec("cifar", depth, "A", zero_pad="both")
        return NetSpec("cifar", depth, "B") if projects else option_a, classes
    deep = any(re.search(r"\.conv3\.", key) for key in keys)
    for depth, table in IMAGENET_BLOCKS.items():
        if fmt == "torchvision" and table == counts and deep == (depth in BOTTLENECK_DEPTHS):
            return NetSpec("imagenet", depth, "B", stride_in="3x3" if deep else "1x1"), classes
    raise StateDictError(f"these are no {fmt} weights: stages of {list(counts)} blocks")


def convert(fmt: str, state: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Return ``state`` under the keys of ``model``, complete and of the right shapes.

    Counters of BN batches, which old files lack and no net of ours reads, are set to 0 then.

    Raises:
        StateDictError: keys are missing or unexpected (they are named), or shapes differ.
    """
    ours = model.state_dict()
    renamed: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for key, tensor in _unwrap(fmt, state).items():
        name = _rename(fmt, key)
        if name in ours:
            renamed[name] = tensor
        else:
            unexpected.append(key)
    for name, tensor in ours.items():
        if name.endswith(".num_batches_tracked"):
            renamed.setdefault(name, tensor.new_zeros(()))
    missing = [name for name in ours if name not in renamed]
    if missing or unexpected:
        problems = [f"missing (our names) {_some(missing)}"] if missing else []
        problems += [f"unexpected (theirs) {_some(unexpected)}"] if unexpected else []
        raise StateDictError(f"{fmt} weights do not fit this net: {'; '.join(problems)}")
    shapes = [
        f"{name} is {tuple(renamed[name].shape)}, the net's is {tuple(tensor.shape)}"
        for name, tensor in ours.items()
        if renamed[name].shape != tensor.shape
    ]
    if shapes:
        raise StateDictError(f"{fmt} weights do not fit this net: {_some(shapes)}")
    return {name: renamed[name] for name in ours}


def _unwrap(fmt: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    if fmt not in FORMATS:
        raise StateDictError(f"format={fmt!r}: expected one of {', '.join(FORMATS)}")
    inner = state.get("state_dict", state)
    if not isinstance(inner, Mapping):
        raise StateDictError(f"state_dict is a {type(inner).__name__}, expected a dict of tensors")
    not_tensors = [str(key) for key, value in inner.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise StateDictError(f"these are no {fmt} weights: no tensors under {_some(not_tensors)}")
    return {str(key).removeprefix("module."): value for key, value in inner.items()}


def _rename(fmt: str, key: str) -> str | None:
    rules = (
        (rf"(conv|bn)1\.{_TENSOR}", r"stem.\1.\2"),
        (rf"layer(\d+)\.(\d+)\.(conv\d|bn\d)\.{_TENSOR}", r"stage\1.\2.residual.\3.\4"),
        (rf"layer(\d+)\.(\d+)\.{_PROJECTION[fmt]}\.0\.{_TENSOR}", r"stage\1.\2.shortcut.conv.\3"),
        (rf"layer(\d+)\.(\d+)\.{_PROJECTION[fmt]}\.1\.{_TENSOR}", r"stage\1.\2.shortcut.bn.\3"),
        (rf"{_HEAD[fmt]}\.{_TENSOR}", r"head.fc.\1"),
    )
    for pattern, name in rules:
        if found := re.fullmatch(pattern, key):
            return found.expand(name)
    return None


def _some(items: list[str], most: int = 8) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
