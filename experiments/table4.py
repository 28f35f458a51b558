"""Table 4: error of single nets, fully convolutional over several scales."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("table4")
