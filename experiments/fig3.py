"""Fig. 3: VGG-19, plain-34 and ResNet-34, drawn from their counted layers."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig3")
