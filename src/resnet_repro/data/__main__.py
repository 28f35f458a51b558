"""``python -m resnet_repro.data``: get CIFAR-10 and verify it."""

from __future__ import annotations

import os
from pathlib import Path

from resnet_repro.data import load
from resnet_repro.exits import explained


def main() -> None:
    """Fetch what is missing; say where it is."""
    root = Path(os.environ.get("RESNET_REPRO_DATA") or "data")
    with explained():
        arrays = load("cifar10", root)
        counts = f"{len(arrays.train_labels)} training and {len(arrays.test_labels)} test images"
        print(f"CIFAR-10 in {root}: {counts}, digests verified")


if __name__ == "__main__":
    main()
