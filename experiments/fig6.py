"""Fig. 6: CIFAR-10 training and test error of plain (left) and residual nets (middle, right)."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig6")
