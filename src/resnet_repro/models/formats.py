"""Rename other people's state dicts to ours, and ours to torchvision's. Reads no files.

================  =================================================================================
``akamaster``     CIFAR nets of akamaster/pytorch_resnet_cifar10: A with zero channels on both sides
``torchvision``   ``resnet18`` to ``resnet152``: option B, bottlenecks with the stride in the 3x3
================  =================================================================================
"""

import re
from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor, nn

from resnet_repro.models.spec import BOTTLENECK_DEPTHS, IMAGENET_BLOCKS, NetSpec

# Names that wrappers put before or into keys: torch's own for several devices, compilation, shards
# and recomputation, and what training frameworks call the net they hold.
WRAPPERS = (
    *("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"),
    *("model", "net", "network"),
)

LISTED = 8  # keys in a message
# What the two call the head and the layers of a projection.
_HEAD = {"akamaster": "linear", "torchvision": "fc"}
_PROJECTION = {"akamaster": "shortcut", "torchvision": "downsample"}


def net_of(fmt: str, state: Mapping[str, Tensor]) -> tuple[NetSpec, int]:
    """The net that a state dict belongs to and its number of classes; ValueError: no such net."""
    head = state.get(f"{_HEAD[fmt]}.weight")
    if head is None or head.ndim != 2:
        raise ValueError(f"these are no {fmt} weights: missing {_HEAD[fmt]}.weight")
    classes = head.shape[0]
    blocks: dict[int, set[int]] = defaultdict(set)
    for key in state:
        if found := re.match(r"layer(\d+)\.(\d+)\.", key):
            blocks[int(found[1])].add(int(found[2]))
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    if fmt == "akamaster" and len(counts) == 3 and len(set(counts)) == 1:
        depth = 6 * counts[0] + 2
        if any(f".{_PROJECTION[fmt]}." in key for key in state):
            return NetSpec("cifar", depth, "B"), classes
        return NetSpec("cifar", depth, "A", zero_pad="both"), classes
    deep = any(".conv3." in key for key in state)
    for depth, table in IMAGENET_BLOCKS.items():
        if fmt == "torchvision" and table == counts and deep == (depth in BOTTLENECK_DEPTHS):
            return NetSpec("imagenet", depth, "B", stride_in="3x3" if deep else "1x1"), classes
    raise ValueError(f"these are no {fmt} weights: stages of {list(counts)} blocks")


def unwrapped(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Remove wrappers' names from the keys, return them too; ValueError: two keys become one."""
    found: dict[str, None] = {}
    plain: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key == "n_averaged":  # of torch's averaged model: how many were averaged
            found[key] = None
            continue
        parts = key.split(".")
        found |= dict.fromkeys(part for part in parts if part in WRAPPERS)
        name = ".".join(part for part in parts if part not in WRAPPERS)
        if name in plain:
            raise ValueError(f"two sets of weights: {name} is there with and without wrappers")
        plain[name] = tensor
    return plain, list(found)


def load_into(net: nn.Module, state: Mapping[str, Tensor], fmt: str | None = None) -> None:
    """Load a state dict, ours or, renamed, one of ``fmt``: every key of ``net`` and no other.

    In ``fmt`` counters of BN batches, which old files lack and no net of ours reads, may be missing
    and are set to 0. ValueError: keys are missing or unexpected, or shapes differ.
    """
    if fmt is not None:
        ours = net.state_dict()
        names = {_their_key(fmt, name): name for name in ours}
        counters = {name: t.new_zeros(()) for name, t in ours.items() if name.endswith("_tracked")}
        renamed = {names.get(key, f"{key} (theirs)"): value for key, value in state.items()}
        state = counters | renamed
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # shapes differ
        raise ValueError(str(error)) from error
    lists = {"missing": missing, "unexpected": unexpected}
    problems = "; ".join(f"{what} {_some(names)}" for what, names in lists.items() if names)
    if problems:
        raise ValueError(f"weights do not fit {type(net).__name__}: {problems}")


def to_torchvision(state: Mapping[str, Tensor], spec: NetSpec) -> dict[str, Tensor]:
    """Rename our state dict to torchvision's ``resnet<depth>``; ValueError: it has no such net."""
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
        raise ValueError(f"{spec.label} cannot be saved as torchvision's: {reason}")
    return {_their_key("torchvision", key): tensor for key, tensor in state.items()}


def _their_key(fmt: str, ours: str) -> str:
    key = re.sub(r"^stem\.(conv|bn)\.", r"\g<1>1.", ours)
    key = re.sub(r"^stage(\d+)\.(\d+)\.residual\.", r"layer\1.\2.", key)
    projection = rf"layer\1.\2.{_PROJECTION[fmt]}"
    key = re.sub(r"^stage(\d+)\.(\d+)\.shortcut\.conv\.", rf"{projection}.0.", key)
    key = re.sub(r"^stage(\d+)\.(\d+)\.shortcut\.bn\.", rf"{projection}.1.", key)
    return re.sub(r"^head\.fc\.", f"{_HEAD[fmt]}.", key)


def _some(items: list[str]) -> str:
    rest = len(items) - LISTED
    return ", ".join(items[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
