"""Training and trained nets from Python, for notebooks and scripts.

``resnet_repro.analysis`` is the other half: it reads what was trained.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from resnet_repro import paths
from resnet_repro.compose import compose_sweep
from resnet_repro.data import jpeg
from resnet_repro.evaluation.subjects import from_export
from resnet_repro.evaluation.weights import WeightsError
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.jobs import run_all


@dataclass(frozen=True)
class Classifier:
    """A trained net and the preparation of its input.

    ``net`` is in evaluation mode and takes float32 (N, 3, H, W) less the ``mean`` (3, H, W).
    ``classes`` are their names or, without names, their numbers.
    """

    label: str
    net: nn.Module
    mean: Tensor
    classes: tuple[str, ...]

    def prepare(self, picture: Image.Image) -> Tensor:
        """The central square of a picture at the net's size (1, 3, H, W), less the mean.

        The picture is taken as stored, as in training: for a photograph with an orientation tag
        pass ``ImageOps.exif_transpose(picture)``. ValueError: more than 8 bits a channel.
        """
        size = self.mean.shape[-1]
        edge = 16 if size == 224 else 0  # of a square of 256 pixels
        square = ImageOps.fit(jpeg.rgb(picture), (size + 2 * edge,) * 2, Image.Resampling.BILINEAR)
        crop = square.crop((edge, edge, edge + size, edge + size))
        pixels = torch.from_numpy(np.array(crop)).to(torch.float32).div_(255)
        return (pixels.permute(2, 0, 1) - self.mean)[None]

    @torch.no_grad()
    def classify(self, picture: Image.Image, most: int = 5) -> list[tuple[str, float]]:
        """The ``most`` probable classes of a picture with their probabilities, best first."""
        found = self.net(self.prepare(picture))[0].softmax(0).topk(min(most, len(self.classes)))
        numbers = found.indices.tolist()
        return [(self.classes[n], p) for n, p in zip(numbers, found.values.tolist(), strict=True)]


def load_net(path: str | Path) -> Classifier:
    """Load weights that ``resnet_repro.export`` wrote: ``load_net(FILE).classify(picture)``.

    ``picture`` is a PIL image of any size; the data set is not needed. WeightsError: the file is
    refused, is not ours, or was exported without the data.
    """
    file = paths.expand(str(path))
    subject, about = from_export(file)
    try:
        prepared = about["input"]
        pixels = np.frombuffer(base64.b64decode(prepared["mean"]), "<f4").reshape(prepared["shape"])
        mean = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        names = tuple(str(name) for name in prepared["classes"])
        if len(names) not in (0, subject.num_classes):
            raise ValueError(f"{len(names)} names for {subject.num_classes} classes")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{file}: holds no mean of the training images; export the run where its data are"
        ) from error
    numbers = tuple(str(number) for number in range(subject.num_classes))
    return Classifier(subject.spec.label, subject.net, mean, names or numbers)


def train(*overrides: str) -> list[Path]:
    """Do the runs of a command line here: ``train("experiment=cifar10_resnet20", "seed=0,1")``.

    It takes what ``python -m resnet_repro.train -m`` does. A finished run is skipped, a stopped one
    is resumed; an interrupt saves first. Returns the run folders in the order of the words.
    ConfigError: they name no run that can be done; nothing was written. Exception: what stopped the
    first failed run; the others were still done. RunBusyError: another process works on one of
    them; the others were done. KeyboardInterrupt: a signal stopped it; runs that had begun are
    saved.
    """
    jobs = compose_sweep(overrides)
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, stop_asked)
    errors = {outcome.state: outcome.error for outcome in reversed(outcomes) if outcome.error}
    if "failed" in errors:
        raise errors["failed"]
    if any(outcome.is_stopped for outcome in outcomes):
        raise KeyboardInterrupt("stopped; rerun the same command to resume")
    if "elsewhere" in errors:
        raise errors["elsewhere"]
    return [job.folder.path for job in jobs]
