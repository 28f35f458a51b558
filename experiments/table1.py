"""Table 1: the ImageNet architectures, counted, beside the paper's FLOPs."""

from resnet_repro.analysis.drawing import main
from resnet_repro.analysis.table1 import save_table1

if __name__ == "__main__":
    main("table1", draw=save_table1, out="results/tables")
