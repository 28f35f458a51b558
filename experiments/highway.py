"""Identity against gated shortcuts (Highway nets) under one protocol."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("highway")
