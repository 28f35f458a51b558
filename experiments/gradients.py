"""Gradient norms through training and the forward signal at initialisation (Sec. 4.1)."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("gradients")
