"""Fig. 7: standard deviations of layer responses, after BN and before ReLU and addition."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig7")
