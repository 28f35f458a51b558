"""What each choice the paper leaves open is worth, at 56 layers: exactly one changed at a time."""

from resnet_repro.items.command import main

if __name__ == "__main__":
    main("deviations")
