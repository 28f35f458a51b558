"""Other people's state dicts, renamed to ours, and ours to torchvision's. Reads no files.

================  =================================================================================
``akamaster``     CIFAR nets of akamaster/pytorch_resnet_cifar10: A with zero channels on both sides
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
# Names that wrappers put before or into keys: torch's own for several devices, compilation, shards
# and recomputation, and what training frameworks call the net they hold.
WRAPPERS = (
    *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    *("model", "net", "network"),
)

# What the two call the head and the layers of a projection.
_HEAD = {"akamaster": "linear", "torchvision": "fc"}
_PROJECTION = {"akamaster": "shortcut", "torchvision": "downsample"}


class StateDictError(ValueError):
    """A state dict that does not fit its format or its net; the message names the keys."""


def net_of(fmt: str, state: Mapping[str, Any]) -> tuple[NetSpec, int]:
    """Return the net that a state dict belongs to, and its number of classes.

    Raises:
        StateDictError: the keys are not those of a net of this format.
    """
    keys = _checked(fmt, state)
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


def unwrapped(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Take the names of wrappers out of the keys, in any order; also return those found.

    Raises:
        StateDictError: two keys become one.
    """
    found: dict[str, None] = {}
    plain: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key == "n_averaged":  # of torch's averaged model: how many were averaged
            found[key] = None
            continue
        parts = key.split(".")
        found |= {part: None for part in parts if part in WRAPPERS}
        name = ".".join(part for part in parts if part not in WRAPPERS)
        if name in plain:
            raise StateDictError(f"two sets of weights: {name} is there with and without wrappers")
        plain[name] = tensor
    return plain, list(found)


def convert(fmt: str, state: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Return ``state`` under the keys of ``model``, complete and of the right shapes.

    Counters of BN batches, which old files lack and no net of ours reads, are set to 0 then.

    Raises:
        StateDictError: keys are missing or unexpected (they are named), or shapes differ.
    """
    ours = model.state_dict()
    names = {_their_key(fmt, name): name for name in ours}
    given = _checked(fmt, state)
    renamed = {names[key]: tensor for key, tensor in given.items() if key in names}
    unexpected = [key for key in given if key not in names]
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


def to_torchvision(state: Mapping[str, Tensor], spec: NetSpec) -> dict[str, Tensor]:
    """Rename our state dict to that of torchvision's ``resnet<depth>``, of equal scores.

    Raises:
        StateDictError: torchvision has no such net; the message gives the reason.
    """
    reason = ""
    if spec.family != "imagenet":
        reason = "torchvision has nets of the ImageNet family only"
    elif spec.shortcut != "B":
        kind = "plain nets" if spec.shortcut == "none" else f"option {spec.shortcut}"
        reason = f"torchvision's nets have option B, not {kind}"
    elif spec.has_bottlenecks and spec.stride_in != "3x3":
        reason = "torchvision's bottlenecks have the stride in the 3x3 conv, this net's in the 1x1"
    elif spec.bn_eps != 1e-5:
        reason = f"torchvision's batch norm has eps 1e-5, this net's {spec.bn_eps:g}"
    if reason:
        raise StateDictError(f"{spec.label} cannot be saved as torchvision's: {reason}")
    return {_their_key("torchvision", key): tensor for key, tensor in state.items()}


def _checked(fmt: str, state: Mapping[str, Any]) -> Mapping[str, Tensor]:
    if fmt not in FORMATS:
        raise StateDictError(f"format={fmt!r}: expected one of {', '.join(FORMATS)}")
    not_tensors = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise StateDictError(f"these are no {fmt} weights: no tensors under {_some(not_tensors)}")
    return state


def _their_key(fmt: str, ours: str) -> str:
    key = ours
    for pattern, theirs in (
        (r"^stem\.(conv|bn)\.", r"\g<1>1."),
        (r"^stage(\d+)\.(\d+)\.residual\.", r"layer\1.\2."),
        (r"^stage(\d+)\.(\d+)\.shortcut\.conv\.", rf"layer\1.\2.{_PROJECTION[fmt]}.0."),
        (r"^stage(\d+)\.(\d+)\.shortcut\.bn\.", rf"layer\1.\2.{_PROJECTION[fmt]}.1."),
        (r"^head\.fc\.", f"{_HEAD[fmt]}."),
    ):
        key = re.sub(pattern, theirs, key)
    return key


def _some(items: list[str], most: int = 8) -> str:
    rest = len(items) - most
    return ", ".join(items[:most]) + (f" and {rest} more" if rest > 0 else "")
