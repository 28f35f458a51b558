"""Table 6: CIFAR-10 test error from 20 to 1202 layers, beside the paper's and public runs."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("table6")
