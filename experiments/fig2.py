"""Fig. 2: a residual block."""

from resnet_repro.analysis.blocks import save_fig2
from resnet_repro.analysis.drawing import main

if __name__ == "__main__":
    main("fig2", draw=save_fig2)
