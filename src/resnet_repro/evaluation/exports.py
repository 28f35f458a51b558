"""Weights files of finished runs: made, listed in a table, and used to classify a picture."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from resnet_repro.data import Arrays, DataError
from resnet_repro.data.order import train_split_indices
from resnet_repro.data.resident import DeviceDataset
from resnet_repro.evaluation.choices import check_training_data
from resnet_repro.evaluation.subjects import Subject, about_run, from_file, from_run
from resnet_repro.evaluation.weights import ABOUT, WeightsError, read, tensors_digest
from resnet_repro.models.formats import to_torchvision
from resnet_repro.options import ConfigError
from resnet_repro.runs.atomic import write_atomic, write_text_atomic
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.training.build import load_images

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write(run: Path, out: Path, form: str, root: str = "auto") -> str:
    """Write the final weights of a run to ``out``; return the SHA-256 of the file.

    Raises:
        RunFolderError: no run there, or it is not finished.
        WeightsError: its final checkpoint is missing or damaged.
        ConfigError: the net has no such format, or the file cannot be written.
    """
    subject, folder = from_run(run), RunFolder(run)
    config = subject.config
    assert config is not None
    about = about_run(config, folder, config.recipe.max_iters)
    about |= {"keys": "torchvision" if form == "torchvision" else "ours", "test": last_test(folder)}
    try:
        about["input"] = input_of(subject, root)
    except (DataError, ConfigError) as error:
        print(
            f"{out}: without the mean of the training images, which only resnet_repro.api.load_net "
            f"needs ({error})",
            file=sys.stderr,
        )
    state: Mapping[str, Tensor] = subject.net.state_dict()
    try:
        if form == "torchvision":
            state = to_torchvision(state, subject.spec)
    except ValueError as error:
        raise ConfigError(f"format=torchvision: {error}") from error
    about["weights_sha256"] = tensors_digest(state)
    data = packed(state, about, form)
    try:
        write_atomic(out, lambda file: file.write(data))
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written ({error.strerror})") from error
    return hashlib.sha256(data).hexdigest()


def packed(state: Mapping[str, Tensor], about: Mapping[str, Any], form: str) -> bytes:
    """Return the bytes of a file of ``state`` with ``about`` as its metadata."""
    # As any program lays tensors out; ours lie channels last in memory.
    tensors = OrderedDict(
        (name, value.detach().cpu().contiguous()) for name, value in state.items()
    )
    text = json.dumps(about)
    if form == "safetensors":
        return safetensors.torch.save(tensors, metadata={ABOUT: text})
    # torch's own table of modules goes with every state dict; load_state_dict passes over entries
    # it does not know.
    tensors._metadata = OrderedDict({"": {"version": 1, ABOUT: text}})  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def last_test(folder: RunFolder) -> dict[str, Any]:
    """Return the errors that a run logged of its final net on the test images.

    Raises:
        RunFolderError: it logged none.
    """
    records = [record for record in folder.metrics() if record.get("kind") == "test"]
    keys = ("iter", "top1_err", "top5_err", "num_samples")
    if not records or not all(key in records[-1] for key in keys):
        raise RunFolderError(f"{folder.metrics_path}: no errors on the test images were logged")
    return {key: records[-1][key] for key in keys}


def input_of(subject: Subject, root: str) -> dict[str, Any]:
    """Return the mean image (H, W, 3), 0..1, that is subtracted, and the names of the classes.

    Raises:
        DataError: the training images are not here.
        ConfigError: they are not those of the training.
    """
    config = subject.config
    assert config is not None
    # Only what is there: to fetch a data set for this would surprise.
    choice = dataclasses.replace(config.data, root=root, source="folder")
    found = load_images(dataclasses.replace(config, data=choice))
    check_training_data([subject], found.digests)
    if isinstance(found, Arrays):
        rows, _ = train_split_indices(choice.train_split, len(found.train_labels))
        images, labels = found.train_images[rows], found.train_labels[rows]
        mean = DeviceDataset(images, labels, torch.device("cpu"), mean=choice.mean).mean.numpy()
        classes: Sequence[str] = CIFAR10 if choice.name == "cifar10" else ()
    else:
        mean, classes = found.statistics.mean.astype(np.float32), found.train.classes
        if choice.mean == "channel":
            mean = np.broadcast_to(found.statistics.mean.mean((0, 1)), mean.shape)
    text = base64.b64encode(np.ascontiguousarray(mean, dtype="<f4").tobytes()).decode("ascii")
    return {"shape": list(mean.shape), "mean": text, "classes": list(classes)}


def write_table(folder: Path) -> Path:
    """List the exported files of a folder in its ``README.md``.

    Raises:
        ConfigError: the file cannot be written.
    """
    rows = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".pt", ".pth", ".safetensors") or not path.is_file():
            continue
        file = read(path)
        about = file.about or {}
        if "test" not in about:
            continue
        subject = from_file(path, about["keys"])
        rows.append(
            {
                "net": subject.spec.label,
                "data": about["data"]["name"],
                "seed": about["seed"],
                "test error %": f"{about['test']['top1_err']:.2f}",
                "of images": f"{about['test']['num_samples']:,}",
                "file": path.name,
                "SHA-256": file.sha256,
                "run": f"results/runs/{subject.source['run']}",
            }
        )
    text = (
        "# Final weights of finished runs\n\nGenerated by `python -m resnet_repro.export "
        "run=RUN_DIR,... out=FOLDER`; the error is the one the run logged.\n\n"
        + pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
        + "\n"
    )
    try:
        write_text_atomic(folder / "README.md", text)
    except OSError as error:
        raise ConfigError(f"out={folder}: cannot be written ({error.strerror})") from error
    return folder / "README.md"


@dataclass(frozen=True)
class Classifier:
    """A trained net with what turns a picture into its input.

    ``net`` is in evaluation mode and takes float32 (N, 3, H, W) less the ``mean`` (3, H, W).
    ``classes`` are their names, or their numbers where they have none.
    """

    label: str
    net: nn.Module
    mean: Tensor
    classes: tuple[str, ...]

    def prepare(self, picture: Image.Image) -> Tensor:
        """The central square of a picture at the net's size (1, 3, H, W), less the mean."""
        size = self.mean.shape[-1]
        side = 256 if size == 224 else size
        square = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
        edge = (side - size) // 2
        crop = square.crop((edge, edge, edge + size, edge + size))
        pixels = torch.from_numpy(np.array(crop)).to(torch.float32).div_(255)
        return (pixels.permute(2, 0, 1) - self.mean)[None]

    @torch.no_grad()
    def classify(self, picture: Image.Image, most: int = 5) -> list[tuple[str, float]]:
        """The ``most`` probable classes of a picture with their probabilities, best first."""
        found = self.net(self.prepare(picture))[0].softmax(0).topk(min(most, len(self.classes)))
        numbers = found.indices.tolist()
        return [(self.classes[n], p) for n, p in zip(numbers, found.values.tolist(), strict=True)]


def load_classifier(path: Path) -> Classifier:
    """Load an exported file, without the data it was trained on.

    Raises:
        WeightsError: the file is refused, is none of ours, or was exported without the data.
    """
    subject, about = from_file(path, "ours"), read(path).about or {}
    try:
        given = about["input"]
        pixels = np.frombuffer(base64.b64decode(given["mean"]), "<f4").reshape(given["shape"])
        mean = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        names = tuple(str(name) for name in given["classes"])
        if len(names) not in (0, subject.num_classes):
            raise ValueError(f"{len(names)} names for {subject.num_classes} classes")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: holds no mean of the training images; export the run where its data are"
        ) from error
    numbers = tuple(str(number) for number in range(subject.num_classes))
    return Classifier(subject.spec.label, subject.net, mean, names or numbers)
