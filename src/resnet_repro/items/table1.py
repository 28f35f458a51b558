"""Table 1: the ImageNet architectures from the counted layers, beside the paper's."""

from collections.abc import Hashable, Sequence
from itertools import groupby

import pandas as pd

from resnet_repro.analysis import counted, paper
from resnet_repro.analysis.counted import CountedBlock, pool_before
from resnet_repro.analysis.tables import NOTHING, Table

NETS = {18: "ResNet-18 A", 34: "ResNet-34 A", 50: "ResNet-50", 101: "ResNet-101", 152: "ResNet-152"}
STAGES = {"stage1": "conv2_x", "stage2": "conv3_x", "stage3": "conv4_x", "stage4": "conv5_x"}


def table1() -> Table:
    """Table 1: layers, output size, then one column per depth; sizes and the paper's beneath.

    A stage reads ``[3x3,64; 3x3,64] x 2``: the convs of a block, times the blocks. ``layout``
    says whether kernels, widths, numbers of blocks, strides and output sizes all are the paper's.
    """
    table = pd.DataFrame({f"{depth}-layer": _column(depth) for depth in NETS}).rename_axis("layer")
    table.insert(
        0, "output", pd.Series(_output_sizes(NETS[18])).reindex(table.index, fill_value="")
    )
    fifty = counted.net(NETS[50]).multiply_adds / 1e9
    notes = [
        "Counted from the nets as built here, for one 224x224 image and 1000 classes; conv2_x "
        "begins with a 3x3 max pool of stride 2; conv3_x, conv4_x and conv5_x halve the map in "
        "their first conv.",
        "Multiply-adds are those of convs and fc, as in the paper (its FLOPs). 18 and 34 layers "
        "with option A shortcuts, 50 and more with option B.",
        "With the stride in the 3x3 conv of a bottleneck (torchvision's place) the count does not "
        "fit the paper's; the first 1x1 conv does. "
        f"The paper prints {fifty:.3f} as {_paper_flops(50):g}.",
        "Parameters, batch normalisation included, are not in the paper.",
    ]
    return Table(table.reset_index(), notes)


def _column(depth: int) -> dict[str, str]:
    """All cells of one net by the names of their rows."""
    nets = {net.net: net for net in counted.nets()}
    net, moved = nets[NETS[depth]], nets.get(f"{NETS[depth]} (stride in 3x3)")
    return _specs(net.net) | {
        "multiply-adds (1e9)": f"{net.multiply_adds / 1e9:.3f}",
        "in the paper (1e9)": f"{_paper_flops(depth):g}",
        "stride in 3x3 instead (1e9)": f"{moved.multiply_adds / 1e9:.3f}" if moved else NOTHING,
        "parameters (1e6)": f"{net.params / 1e6:.2f}",
        "layout": _agreement(depth),
    }


def _specs(net: str) -> dict[str, str]:
    """Specification of each row of the table for one net."""
    stem, *_, fc = (layer for layer in counted.layers(net) if not layer.on_shortcut)
    return {
        "conv1": f"{stem.kernel}x{stem.kernel}, {stem.out_channels}, stride {stem.stride}",
        **{
            name: f"[{'; '.join(f'{y.kernel}x{y.kernel},{y.out_channels}' for y in blocks[0].main)}"
            f"] x {len(blocks)}"
            for name, blocks in _stages(net).items()
        },
        "classifier": f"average pool, {fc.out_channels}-d fc, softmax",
    }


def _output_sizes(net: str) -> dict[str, str]:
    """Output size of each row of the table, ``56x56``."""
    sizes = {"conv1": counted.layers(net)[0].out_size}
    sizes |= {name: blocks[-1].main[-1].out_size for name, blocks in _stages(net).items()}
    return {name: f"{size}x{size}" for name, size in (sizes | {"classifier": 1}).items()}


def _stages(net: str) -> dict[str, list[CountedBlock]]:
    grouped = groupby(counted.blocks(net), key=lambda block: block.name.split(".")[0])
    return {STAGES[stage]: list(blocks) for stage, blocks in grouped}


def _paper_flops(depth: int) -> float:
    """What Table 1 prints as FLOPs, in 1e9 multiply-adds."""
    return float(_paper_row("FLOPs_1e9_multiply_adds")[f"spec_{depth}_layer"])


def _paper_row(layer: str) -> dict[Hashable, str]:
    table = paper.read("table1_architectures").astype(str).set_index("layer_name")
    return table.loc[layer].to_dict()


def _agreement(depth: int) -> str:
    """``as the paper's``, or which row of the paper's table the counted net contradicts."""
    stages, sizes = _stages(NETS[depth]), _output_sizes(NETS[depth])
    wrong = []
    for name, spec in _specs(NETS[depth]).items():
        row = _paper_row(name)
        expected = row[f"spec_{depth}_layer"].replace(" | ", "; ")
        if name in stages:
            expected = f"[{expected}] x {float(row[f'blocks_{depth}']):g}"
            if _stride(stages[name]) != float(row["first_block_stride"]):
                wrong.append(f"{name}: stride {row['first_block_stride']}")
        if spec != expected:
            wrong.append(f"{name}: {expected}")
        if sizes[name] != row["output_size"]:
            wrong.append(f"{name}: {row['output_size']}")
    stem, first, *_ = counted.layers(NETS[depth])
    if not pool_before(first, stem.out_size):
        wrong.append("conv2_x: max pool")
    return "differs: " + "; ".join(wrong) if wrong else "as the paper's"


def _stride(blocks: Sequence[CountedBlock]) -> int:
    """Stride of a stage's first block; 0 if a later block has one."""
    if any(layer.stride != 1 for block in blocks[1:] for layer in block.main):
        return 0
    return max(layer.stride for layer in blocks[0].main)
