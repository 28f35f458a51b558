"""Fig. 5: the basic block and the bottleneck, with their counted sizes."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig5")
