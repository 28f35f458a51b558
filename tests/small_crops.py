"""The full-size path with crops of 64 instead of 224 pixels: a twelfth of the work."""

from __future__ import annotations

import pytest

from resnet_repro.data import colours, jpeg, loader, streamed

CROP = 64


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Let ``patch`` make the crops of training and testing and the mean picture small."""
    patch.setattr(jpeg.train_crop, "__defaults__", (CROP,))
    patch.setattr(jpeg.centre_crop, "__defaults__", (jpeg.TEST_SIDE, CROP))
    patch.setattr(loader, "SIDES", (72, 120))
    for module in (colours, loader, streamed):
        patch.setattr(module, "CROP", CROP)
