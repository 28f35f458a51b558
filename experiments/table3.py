"""Table 3: 10-crop error by shortcut option and depth, 34 to 152 layers."""

from resnet_repro.analysis import imagenet_claims, imagenet_tables
from resnet_repro.items import main

if __name__ == "__main__":
    main(
        "table3",
        draw=imagenet_tables.save_table3,
        claims=[imagenet_claims.shortcuts_beat_plain, imagenet_claims.deeper_is_better],
        out="results/tables",
        protocol="10-crop",
    )
