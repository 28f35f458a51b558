"""Fig. 5: the basic block and the bottleneck, with their counted sizes."""

from resnet_repro.analysis.blocks import save_fig5
from resnet_repro.analysis.drawing import main

if __name__ == "__main__":
    main("fig5", draw=save_fig5)
