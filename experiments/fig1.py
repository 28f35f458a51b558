"""Fig. 1: training error (left) and test error (right) of plain-20 and plain-56 on CIFAR-10."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig1")
