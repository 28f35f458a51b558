"""Table 2: 10-crop error of plain and residual nets of 18 and 34 layers."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("table2")
