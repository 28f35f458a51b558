"""Table 1: the ImageNet architectures, counted, beside the paper's FLOPs."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("table1")
