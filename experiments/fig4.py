"""Fig. 4: training and validation error of plain (left) and residual nets (right).

Of 18 and 34 layers, the deeper plain net is worse in both on ImageNet, the deeper residual net
better. Tiny ImageNet has panels of its own.
"""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("fig4")
