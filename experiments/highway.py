"""Identity against gated shortcuts (Highway nets) under one protocol."""

from functools import partial

from resnet_repro.analysis.deviations import save_deviations
from resnet_repro.items import main

if __name__ == "__main__":
    main("highway", draw=partial(save_deviations, stem="highway"))
