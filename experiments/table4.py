"""Table 4: error of single nets, fully convolutional over several scales."""

from resnet_repro.analysis import imagenet_claims, imagenet_tables
from resnet_repro.items import main

if __name__ == "__main__":
    main(
        "table4",
        draw=imagenet_tables.save_table4,
        claims=[imagenet_claims.deeper_is_better],
        out="results/tables",
    )
