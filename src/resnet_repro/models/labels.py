"""How figures and tables call a net. No imports: the drawing half has no torch."""

CIFAR_NAMES = {
    "none": "plain-{}",
    "A": "ResNet-{}",  # Sec. 4.2: option A in all cases, so the paper needs no letter
    "B": "ResNet-{} B",
    "C": "ResNet-{} C",
    "gate": "Highway-{}",
}
IMAGENET_NAMES = {
    "none": "plain-{}",
    "A": "ResNet-{} A",
    "B": "ResNet-{} B",
    "C": "ResNet-{} C",
}
BOTTLENECK_NAMES = IMAGENET_NAMES | {"B": "ResNet-{}"}  # Sec. 4.1: 50, 101 and 152 use option B
BOTTLENECK_DEPTHS = (50, 101, 152)


def net_label(
    family: str,
    depth: int,
    shortcut: str,
    *,
    layers_per_block: int = 2,
    zero_pad: str = "end",
    stride_in: str = "1x1",
) -> str:
    """Name a net as the paper does: plain-20, ResNet-56, ResNet-34 B, ResNet-50, Highway-20.

    What the paper has no name for is added in brackets: ``ResNet-20 (3-layer blocks)``,
    ``ResNet-20 (zero pad both)``, ``ResNet-50 (stride in 3x3)``.

    Raises:
        ValueError: unknown family, or a shortcut that the family does not have.
    """
    if family not in ("cifar", "imagenet"):
        raise ValueError(f"family={family!r}: expected cifar or imagenet")
    if family == "cifar":
        names = CIFAR_NAMES
    else:
        names = BOTTLENECK_NAMES if depth in BOTTLENECK_DEPTHS else IMAGENET_NAMES
    if shortcut not in names:
        raise ValueError(f"shortcut={shortcut!r}: the {family} family has {', '.join(names)}")
    unusual = [
        f"{layers_per_block}-layer blocks" if layers_per_block != 2 else "",
        f"zero pad {zero_pad}" if zero_pad != "end" else "",
        f"stride in {stride_in}" if stride_in != "1x1" else "",
    ]
    remarks = ", ".join(filter(None, unusual))
    return names[shortcut].format(depth) + (f" ({remarks})" if remarks else "")
