"""Shortcuts around one, two and three convs (Sec. 3.2: one gives no benefit)."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("blocks")
