"""Fig. 4: training and validation error of plain (left) and residual nets (right)."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig4")
