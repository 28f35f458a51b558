"""Table 4: error of single nets, fully convolutional over several scales."""

from functools import partial

from resnet_repro.analysis import imagenet_claims, imagenet_tables
from resnet_repro.items import main

if __name__ == "__main__":
    main(
        "table4",
        draw=imagenet_tables.save_table4,
        claims=[partial(imagenet_claims.deeper_is_better, protocol="multi-scale")],
        out="results/tables",
        protocol="multi-scale",
    )
