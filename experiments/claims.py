"""Every claim of the paper about CIFAR-10, tested on the logged runs."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("claims")
