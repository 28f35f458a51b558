"""Shortcuts around one, two and three convs (Sec. 3.2: one gives no benefit)."""

from functools import partial

from resnet_repro.analysis.deviations import save_deviations
from resnet_repro.items import main

if __name__ == "__main__":
    main("blocks", draw=partial(save_deviations, stem="blocks"))
