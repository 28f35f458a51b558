"""Table 3: 10-crop error by shortcut option and depth, 34 to 152 layers."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("table3")
