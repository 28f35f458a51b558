"""From the pictures of a batch to what the net sees, on the device (Sec. 3.4).

The mean is subtracted after cropping, as in the authors' release, and AlexNet's colour noise is
added: to every pixel of a picture the same colour, ``sum_i p_i * alpha_i * lambda_i``, alpha_i one
draw from N(0, 0.1) per picture and use. ``p_i`` are the principal colours of the training set.
AlexNet's text calls ``lambda_i`` the eigenvalues of their covariance; its released code multiplies
by the square roots, the standard deviations, and so does this: only they scale with the pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_repro.data.statistics import ColourStatistics


class PicturePreparation:
    """Scales pixels to 0..1, subtracts the mean, adds colour noise.

    Args:
        statistics: of the training set.
        device: where it is done.
        mean: ``pixel`` subtracts the mean picture, ``channel`` its mean colour. Pictures of another
            size than the mean picture (multi-scale testing) always have the mean colour subtracted.
    """

    def __init__(self, statistics: ColourStatistics, device: torch.device, mean: str = "pixel"):
        picture = torch.tensor(statistics.mean, dtype=torch.float32, device=device)  # (224, 224, 3)
        self._colour = torch.tensor(
            statistics.mean.mean(axis=(0, 1)), dtype=torch.float32, device=device
        )
        self._mean = picture if mean == "pixel" else self._colour.expand_as(picture)
        noise = statistics.colours * statistics.deviations  # column i: p_i * lambda_i
        self._noise = torch.tensor(noise, dtype=torch.float32, device=device)
        self._device = device

    def train(self, images: Tensor, alphas: Tensor) -> Tensor:
        """Training pictures; uint8 (B, H, W, 3) and float32 (B, 3) to float32 (B, 3, H, W).

        The result lies in memory channels last.
        """
        alphas = alphas.to(self._device, non_blocking=True)
        # Sums of three products, not a matrix product: TF32 would round it.
        shift = (alphas[:, None, :] * self._noise).sum(dim=2)
        return self._centred(images).add_(shift[:, :, None, None])

    def test(self, images: Tensor) -> Tensor:
        """Test pictures; uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels last."""
        return self._centred(images)

    def _centred(self, images: Tensor) -> Tensor:
        pixels = images.to(self._device, non_blocking=True).to(torch.float32).div_(255)
        mean = self._mean if pixels.shape[1:] == self._mean.shape else self._colour
        return pixels.sub_(mean).permute(0, 3, 1, 2)
