"""Every claim of the paper about CIFAR-10, tested on the logged runs."""

from resnet_repro.analysis import claims
from resnet_repro.items import main

if __name__ == "__main__":
    main("claims", draw=claims.save_claims, claims=claims.CIFAR_CLAIMS, out="results/tables")
