"""Table 1: the ImageNet architectures from the counted layers, beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd

from resnet_repro.analysis.counted import Counted, CountedBlock, CountedLayer, pool_before
from resnet_repro.analysis.paper import Paper
from resnet_repro.analysis.tables import NOTHING, write_table

NETS = {18: "ResNet-18 A", 34: "ResNet-34 A", 50: "ResNet-50", 101: "ResNet-101", 152: "ResNet-152"}
STAGES = {"stage1": "conv2_x", "stage2": "conv3_x", "stage3": "conv4_x", "stage4": "conv5_x"}


def table1(counted: Counted | None = None, paper: Paper | None = None) -> pd.DataFrame:
    """Table 1: layers, output size, then one column per depth; sizes and the paper's beneath.

    A stage reads ``[3x3,64; 3x3,64] x 2``: the convs of a block, times the blocks. ``layout``
    says whether kernels, widths, numbers of blocks, strides and output sizes all are the paper's.
    """
    counted, paper = counted or Counted(), paper or Paper()
    columns = {depth: _column(counted, net) for depth, net in NETS.items()}
    sizes = _column_sizes(counted, NETS[18])
    rows = [
        {"layer": name, "output": sizes[name]}
        | {f"{depth}-layer": column[name] for depth, column in columns.items()}
        for name in columns[18]
    ]
    rows += _size_rows(counted, paper)
    rows.append(
        {"layer": "layout", "output": ""}
        | {f"{depth}-layer": _agreement(counted, paper, depth) for depth in NETS}
    )
    return pd.DataFrame(rows)


def save(out_dir: Path) -> list[Path]:
    """Write Table 1 as ``table1.md``, ``table1.tex`` and ``table1.csv``."""
    return write_table(table1(), "table1", out_dir, notes=notes())


def notes(counted: Counted | None = None, paper: Paper | None = None) -> list[str]:
    """Sentences to print under the table."""
    fifty = (counted or Counted()).net(NETS[50]).multiply_adds / 1e9
    printed = paper_flops(paper or Paper(), 50)
    return [
        "Counted from the nets as built here, for one 224x224 image and 1000 classes; conv2_x "
        "begins with a 3x3 max pool of stride 2; conv3_x, conv4_x and conv5_x halve the map in "
        "their first conv.",
        "Multiply-adds are those of convs and fc, as in the paper (its FLOPs). 18 and 34 layers "
        "with option A shortcuts, 50 and more with option B.",
        "With the stride in the 3x3 conv of a bottleneck (torchvision's place) the count does not "
        f"fit the paper's; the first 1x1 conv does. The paper prints {fifty:.3f} as {printed:g}.",
        "Parameters, batch normalisation included, are not in the paper.",
    ]


def _column(counted: Counted, net: str) -> dict[str, str]:
    """Specification of each row of the table for one net."""
    layers = [layer for layer in counted.layers(net) if not layer.on_shortcut]
    stem, fc = layers[0], layers[-1]
    column = {"conv1": f"{stem.kernel}x{stem.kernel}, {stem.out_channels}, stride {stem.stride}"}
    for name, blocks in _stages(counted, net).items():
        column[name] = f"[{_spec(blocks[0])}] x {len(blocks)}"
    column["classifier"] = f"average pool, {fc.out_channels}-d fc, softmax"
    return column


def _column_sizes(counted: Counted, net: str) -> dict[str, str]:
    """Output size of each row of the table, ``56x56``."""
    sizes = {"conv1": counted.layers(net)[0].out_size}
    sizes |= {name: blocks[-1].main[-1].out_size for name, blocks in _stages(counted, net).items()}
    return {name: f"{size}x{size}" for name, size in (sizes | {"classifier": 1}).items()}


def _stages(counted: Counted, net: str) -> dict[str, list[CountedBlock]]:
    grouped = groupby(counted.blocks(net), key=lambda block: block.main[0].stage)
    return {STAGES[stage]: list(blocks) for stage, blocks in grouped}


def _spec(block: CountedBlock) -> str:
    return "; ".join(f"{y.kernel}x{y.kernel},{y.out_channels}" for y in block.main)


def _size_rows(counted: Counted, paper: Paper) -> list[dict[str, str]]:
    other = {depth: f"{net} (stride in 3x3)" for depth, net in NETS.items() if depth >= 50}
    known = {net.net: net for net in counted.nets()}

    def row(name: str, cells: Mapping[int, str]) -> dict[str, str]:
        return {"layer": name, "output": ""} | {
            f"{depth}-layer": cells.get(depth, NOTHING) for depth in NETS
        }

    adds = {depth: f"{known[net].multiply_adds / 1e9:.3f}" for depth, net in NETS.items()}
    moved = {depth: f"{known[net].multiply_adds / 1e9:.3f}" for depth, net in other.items()}
    params = {depth: f"{known[net].params / 1e6:.2f}" for depth, net in NETS.items()}
    return [
        row("multiply-adds (1e9)", adds),
        row("in the paper (1e9)", {depth: f"{paper_flops(paper, depth):g}" for depth in NETS}),
        row("stride in 3x3 instead (1e9)", moved),
        row("parameters (1e6)", params),
    ]


def paper_flops(paper: Paper, depth: int) -> float:
    """What Table 1 prints as FLOPs, in 1e9 multiply-adds."""
    return float(_theirs(paper)["FLOPs_1e9_multiply_adds"][f"spec_{depth}_layer"])


def _theirs(paper: Paper) -> dict[str, dict[str, str]]:
    """The paper's table: row, column -> text."""
    table = paper.read("table1_architectures").astype(str)
    return {
        str(row["layer_name"]): {str(name): str(value) for name, value in row.items()}
        for _, row in table.iterrows()
    }


def _agreement(counted: Counted, paper: Paper, depth: int) -> str:
    """``as the paper's``, or which row of the paper's table the counted net contradicts."""
    table = _theirs(paper)
    ours, sizes = _column(counted, NETS[depth]), _column_sizes(counted, NETS[depth])
    stages = _stages(counted, NETS[depth])
    wrong = []
    for name, spec in ours.items():
        row = table[name]
        theirs = row[f"spec_{depth}_layer"].replace(" | ", "; ")
        if name in stages:
            theirs = f"[{theirs}] x {float(row[f'blocks_{depth}']):g}"
            if _strides(stages[name]) != float(row["first_block_stride"]):
                wrong.append(f"{name}: stride {row['first_block_stride']}")
        if spec != theirs:
            wrong.append(f"{name}: {theirs}")
        if sizes[name] != row["output_size"]:
            wrong.append(f"{name}: {row['output_size']}")
    if not _pool_between(counted.layers(NETS[depth])):
        wrong.append("conv2_x: max pool")
    return "differs: " + "; ".join(wrong) if wrong else "as the paper's"


def _strides(blocks: Sequence[CountedBlock]) -> int:
    """Stride of a stage's first block; 0 if a later block has one."""
    if any(layer.stride != 1 for block in blocks[1:] for layer in block.main):
        return 0
    return max(layer.stride for layer in blocks[0].main)


def _pool_between(layers: Sequence[CountedLayer]) -> bool:
    return pool_before(layers[1], layers[0].out_size)
