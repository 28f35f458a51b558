"""Fig. 3: VGG-19, plain-34 and ResNet-34, drawn from their counted layers."""

from resnet_repro.analysis.columns import save_fig3
from resnet_repro.analysis.drawing import main

if __name__ == "__main__":
    main("fig3", draw=save_fig3)
