"""Table 6: CIFAR-10 test error from 20 to 1202 layers, beside the paper's and public runs.

The paper prints no number for its plain nets: those are read off Fig. 6 and say so.
"""

from resnet_repro.analysis import claims, tables
from resnet_repro.items import main

if __name__ == "__main__":
    main(
        "table6",
        draw=tables.save_table6,
        claims=[
            claims.residual_errors_fall,
            claims.residual_beats_plain,
            claims.depth_1202_overfits,
        ],
        out="results/tables",
    )
