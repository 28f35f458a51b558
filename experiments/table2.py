"""Table 2: 10-crop error of plain and residual nets of 18 and 34 layers."""

from resnet_repro.analysis import imagenet_claims, imagenet_tables
from resnet_repro.items import main

if __name__ == "__main__":
    main(
        "table2",
        draw=imagenet_tables.save_table2,
        claims=[imagenet_claims.plain_degrades_residual_does_not],
        out="results/tables",
        protocol="10-crop",
    )
