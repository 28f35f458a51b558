"""Fig. 6: CIFAR-10 training and test error of plain (left) and residual nets (middle, right).

Plain nets get worse with depth, residual nets better, up to 110 layers; 1202 layers overfit.
"""

from resnet_repro.analysis import claims, curves
from resnet_repro.items import main

if __name__ == "__main__":
    main(
        "fig6",
        draw=curves.save_fig6,
        claims=[
            claims.plain_test_error_rises,
            claims.plain_training_error_rises,
            claims.residual_errors_fall,
            claims.residual_beats_plain,
            claims.depth_1202_overfits,
        ],
    )
