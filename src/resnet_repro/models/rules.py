"""Which nets can be built. No torch here, so that a bad configuration is refused in no time.

Depth counts the convs of the main path and the fc (Sec. 3.3 and 4.2).
"""

FAMILIES = ("cifar", "imagenet")
SHORTCUTS = ("none", "A", "B", "C", "gate")
ZERO_PADS = ("end", "both")
INITS = ("he_fan_in", "he_fan_out")
STRIDES_IN = ("1x1", "3x3")

# Table 1: depth -> blocks in conv2_x, conv3_x, conv4_x, conv5_x.
IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_DEPTHS = (50, 101, 152)


def cifar_blocks_per_stage(depth: int, layers_per_block: int = 2) -> int:
    """Blocks in each of the three stages of a CIFAR net of 6n+2 layers: 2n convs per stage.

    Raises:
        ValueError: depth is not 6n+2, or 2n convs cannot be grouped into such blocks.
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ValueError(
            f"depth={depth}: a CIFAR net has 6n+2 layers, n >= 1: 8, 14, 20, 26, 32, ...; "
            "the paper's are 20, 32, 44, 56, 110 and 1202"
        )
    _one_of("layers_per_block", layers_per_block, (1, 2, 3))
    if 2 * n % layers_per_block:
        raise ValueError(
            f"layers_per_block={layers_per_block} at depth={depth}: the 2n = {2 * n} convs of a "
            f"stage must be divisible by {layers_per_block}; depths that are: 20, 38, 56, 74, 92, "
            "110, ... (18k+2)"
        )
    return 2 * n // layers_per_block


def check_net(
    family: str,
    depth: int,
    shortcut: str,
    *,
    layers_per_block: int = 2,
    zero_pad: str = "end",
    init: str = "he_fan_in",
    bn_eps: float = 1e-5,
    bn_momentum: float = 0.1,
    bn_group: int = 0,
    stride_in: str = "1x1",
    gate_bias: float = -2.0,
) -> None:
    """Refuse a net that cannot be built, or a setting that this net would silently ignore.

    The arguments are those of :func:`resnet_repro.models.registry.build`.

    Raises:
        ValueError: names the setting, its value and what is allowed.
    """
    _one_of("family", family, FAMILIES)
    _one_of("shortcut", shortcut, SHORTCUTS)
    _one_of("zero_pad", zero_pad, ZERO_PADS)
    _one_of("init", init, INITS)
    _one_of("stride_in", stride_in, STRIDES_IN)
    if family == "cifar":
        cifar_blocks_per_stage(depth, layers_per_block)
    else:
        _one_of("imagenet depth", depth, tuple(IMAGENET_BLOCKS))
        if shortcut == "gate":
            raise ValueError("shortcut='gate': only the CIFAR family has the gated baseline")
    if not bn_eps > 0:
        raise ValueError(f"bn_eps={bn_eps}: must be positive")
    if not 0 < bn_momentum <= 1:
        raise ValueError(f"bn_momentum={bn_momentum}: must be above 0 and at most 1")
    if bn_group < 0:
        raise ValueError(f"bn_group={bn_group}: must be 0 (whole batch) or a number of images")
    _refuse_settings_without_effect(
        family, depth, shortcut, layers_per_block, zero_pad, stride_in, gate_bias
    )


def _refuse_settings_without_effect(
    family: str,
    depth: int,
    shortcut: str,
    layers_per_block: int,
    zero_pad: str,
    stride_in: str,
    gate_bias: float,
) -> None:
    # A run's config must not claim a difference that its net does not have.
    bottleneck = family == "imagenet" and depth in BOTTLENECK_DEPTHS
    if layers_per_block != 2 and (family == "imagenet" or shortcut == "none"):
        raise ValueError(
            f"layers_per_block={layers_per_block}: only CIFAR nets with shortcuts have the choice"
        )
    if stride_in != "1x1" and not bottleneck:
        raise ValueError(f"stride_in={stride_in!r}: only bottlenecks (50, 101, 152) have a choice")
    if zero_pad != "end" and shortcut not in ("A", "gate"):
        raise ValueError(f"zero_pad={zero_pad!r}: shortcut {shortcut!r} pads no channels")
    if gate_bias != -2.0 and shortcut != "gate":
        raise ValueError(f"gate_bias={gate_bias}: shortcut {shortcut!r} has no gate")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(str, allowed))}")
