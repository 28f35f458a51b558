"""Fig. 2: a residual block."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig2")
