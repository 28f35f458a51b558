"""The choice of a net: the configuration's ``model`` group, its checks and the net's name.

Without torch, which drawing does not need. Depth counts the convs of the main path and the fc.
"""

from dataclasses import dataclass

from resnet_repro.options import Check, ConfigError, above, at_least, check_fields, one_of, option

# Table 1: depth -> blocks in conv2_x, conv3_x, conv4_x, conv5_x.
IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
BOTTLENECK_DEPTHS = (50, 101, 152)
NAMES = {"none": "plain-{}", "A": "ResNet-{} A", "B": "ResNet-{} B", "C": "ResNet-{} C"}
# Sec. 4.2: option A in all cases, so the paper needs no letter.
CIFAR_NAMES = NAMES | {"A": "ResNet-{}", "gate": "Highway-{}"}
BOTTLENECK_NAMES = NAMES | {"B": "ResNet-{}"}  # Sec. 4.1: 50, 101 and 152 use option B


@dataclass(frozen=True)
class NetSpec:
    """The net (Sec. 3.3, 4.2).

    ConfigError: it cannot be built, or would ignore a setting.
    """

    family: str = option("cifar", "family of nets", one_of("cifar", "imagenet"))
    depth: int = option(20, "number of weighted layers", at_least(8))
    shortcut: str = option(
        "none",
        "none: plain net; A zero-padded identity, B projections where dimensions grow, "
        "C projections everywhere, gate: Highway",
        one_of(*CIFAR_NAMES),
    )
    layers_per_block: int = option(2, "3x3 convs in a block", one_of(1, 2, 3))
    zero_pad: str = option("end", "where option A puts the new channels", one_of("end", "both"))
    init: str = option("he_fan_in", "He initialisation", one_of("he_fan_in", "he_fan_out"))
    stride_in: str = option(
        "1x1", "the conv of a bottleneck that has the stride", one_of("1x1", "3x3")
    )
    bn_eps: float = option(1e-5, "batch-norm epsilon", above(0))
    bn_momentum: float = option(
        0.1,
        "share of a new batch in the running statistics",
        Check("in (0, 1)", lambda v: 0 < v < 1),
    )
    bn_group: int = option(
        0,
        "images normalised together; 64 emulates the paper's two devices, 0: the batch",
        at_least(0),
    )
    gate_bias: float = option(-2.0, "initial bias of the Highway gate; negative carries")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.family == "cifar":
            self._check_cifar_depth()
        elif self.depth not in IMAGENET_BLOCKS:
            depths = ", ".join(map(str, IMAGENET_BLOCKS))
            raise ConfigError(f"depth={self.depth}: must be one of {depths} in the imagenet family")
        if self.shortcut not in self._names:
            raise ConfigError("shortcut=gate: only the CIFAR family has the gated baseline")
        self._refuse_settings_without_effect()

    @property
    def has_bottlenecks(self) -> bool:
        """Whether its blocks are those of Fig. 5 right."""
        return self.family == "imagenet" and self.depth in BOTTLENECK_DEPTHS

    @property
    def blocks_per_stage(self) -> tuple[int, ...]:
        """Blocks of each stage; CIFAR nets of 6n+2 layers have 2n convs in each of three."""
        if self.family == "imagenet":
            return IMAGENET_BLOCKS[self.depth]
        return ((self.depth - 2) // 3 // self.layers_per_block,) * 3

    @property
    def label(self) -> str:
        """The net's name, as in the paper: plain-20, ResNet-56, ResNet-34 B, ResNet-50, Highway-20.

        What the paper has no name for is added in brackets: ``ResNet-20 (3-layer blocks)``,
        ``ResNet-20 (zero pad both)``, ``ResNet-50 (stride in 3x3)``.
        """
        unusual = [
            f"{self.layers_per_block}-layer blocks" if self.layers_per_block != 2 else "",
            f"zero pad {self.zero_pad}" if self.zero_pad != "end" else "",
            f"stride in {self.stride_in}" if self.stride_in != "1x1" else "",
        ]
        remarks = ", ".join(filter(None, unusual))
        return self._names[self.shortcut].format(self.depth) + (f" ({remarks})" if remarks else "")

    @property
    def _names(self) -> dict[str, str]:
        if self.family == "cifar":
            return CIFAR_NAMES
        return BOTTLENECK_NAMES if self.has_bottlenecks else NAMES

    def _check_cifar_depth(self) -> None:
        n, rest = divmod(self.depth - 2, 6)
        if rest:
            raise ConfigError(
                f"depth={self.depth}: a CIFAR net has 6n+2 layers, n >= 1: 8, 14, 20, 26, 32, ...; "
                "the paper's are 20, 32, 44, 56, 110 and 1202"
            )
        layers = self.layers_per_block
        if 2 * n % layers:
            raise ConfigError(
                f"layers_per_block={layers} at depth={self.depth}: the 2n = {2 * n} convs of a "
                f"stage must be divisible by {layers}; depths that are: 20, 38, 56, 74, 92, "
                "110, ... (18k+2)"
            )

    def _refuse_settings_without_effect(self) -> None:
        # A run's config must not claim a difference that its net does not have.
        shortcut = self.shortcut
        has_choice = self.family == "cifar" and shortcut != "none"
        for key, effective, reason in (
            ("layers_per_block", has_choice, "only CIFAR nets with shortcuts have the choice"),
            ("stride_in", self.has_bottlenecks, "only bottlenecks (50, 101, 152) have a choice"),
            ("zero_pad", shortcut in ("A", "gate"), f"shortcut={shortcut} pads no channels"),
            ("gate_bias", shortcut == "gate", f"shortcut={shortcut} has no gate"),
        ):
            value = getattr(self, key)
            if value != getattr(NetSpec, key) and not effective:
                raise ConfigError(f"{key}={value}: {reason}")
