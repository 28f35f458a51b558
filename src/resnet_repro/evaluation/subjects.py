"""A net to be tested: built from a weights file or a finished run, with its origin."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from resnet_repro.config import Config, DataConfig
from resnet_repro.evaluation import weights
from resnet_repro.evaluation.weights import WeightsFile, refusals_of
from resnet_repro.exits import one_line
from resnet_repro.models import formats
from resnet_repro.models.build import build_empty
from resnet_repro.models.count import count_params
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import build
from resnet_repro.runs.folder import RunFolder, RunFolderError
from resnet_repro.training.checkpoint import damage

T = TypeVar("T")
OURS = "ours"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Subject:
    """A net on the CPU, float32, in evaluation mode.

    Data set with mean, precision and digests are those of its training; other people's have none.
    """

    name: str  # a word for file names
    net: nn.Module
    spec: NetSpec
    num_classes: int
    source: dict[str, Any]  # what a result records of where the weights come from
    data: DataConfig | None = None
    precision: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    config: Config | None = None  # that of a run, where its folder is at hand
    notes: tuple[str, ...] = ()  # what was chosen from a file or changed in its keys

    def record(self) -> dict[str, Any]:
        """Return what a result records of the net and its weights."""
        net = {"label": self.spec.label, "params": count_params(self.net)}
        settings = dataclasses.asdict(self.spec)
        del settings["init"]  # no property of trained weights
        return {"net": net | settings | {"num_classes": self.num_classes}} | self.source


def from_file(
    path: Path, fmt: str, weights_key: str | None = None, stride_in: str | None = None
) -> Subject:
    """Build the net a weights file belongs to.

    ``ours`` takes an exported file, which names its net, or a checkpoint inside its run folder. Of
    other formats ``weights_key`` chooses one of several state dicts, and ``stride_in`` says where
    torchvision-keyed bottlenecks have the stride, which their keys do not show. WeightsError: the
    file is refused, is not of this format, or does not name its net. RunFolderError: the run folder
    of a checkpoint cannot be read.
    """
    file = weights.read(path)
    source = {"file": path.name, "sha256": file.sha256, "bytes": file.bytes, "format": fmt}
    with refusals_of(path):
        if fmt == OURS:
            return _ours(file, source)
        return _theirs(file, source, weights_key, stride_in)


def from_export(path: Path) -> tuple[Subject, Mapping[str, Any]]:
    """Build the net of a file of ``resnet_repro.export``, whatever its keys; and what it records.

    WeightsError: the file is refused, or is no such export.
    """
    about = weights.read(path).about
    if about is None:
        raise weights.WeightsError(f"{path}: is no file of resnet_repro.export")
    return from_file(path, "torchvision" if about.get("keys") == "torchvision" else OURS), about


def from_run(path: Path) -> Subject:
    """Build the final net of a finished run.

    RunFolderError: no run is there, or it is not finished; ConfigError: its configuration is not
    one of this version's; WeightsError: its final checkpoint is missing or damaged.
    """
    folder = RunFolder(path)
    config = Config.from_mapping(folder.config())
    if not folder.is_finished:
        state = folder.status().get("state", "not begun")
        raise RunFolderError(f"{path}: the run is {state}, not finished; train it to its end first")
    last = folder.checkpoint(config.recipe.max_iters)
    with refusals_of(last):
        if not last.is_file():
            raise ValueError(
                "no final checkpoint (they are not kept in version control); use weights=... with "
                "an exported file, or train the run again"
            )
        file = weights.read(last)
        source = {"sha256": file.sha256, "bytes": file.bytes, "format": OURS}
        return _of_checkpoint(file, folder, config, source)


def about_run(config: Config, folder: RunFolder, iteration: int) -> dict[str, Any]:
    """What weights record of their run, to be used without its folder; or RunFolderError."""
    meta, pictures = folder.meta(), dataclasses.asdict(config.data)
    del pictures["root"], pictures["source"]
    return {
        "schema": 1,
        **config.identity,
        "iter": iteration,
        "metrics_sha256": folder.metrics_digest(iteration),
        "precision": meta.get("precision"),
        "digests": meta.get("data", {}).get("digests", {}),
        "model": dataclasses.asdict(config.model),
        "data": pictures,
    }


def _theirs(
    file: WeightsFile, source: dict[str, Any], weights_key: str | None, stride_in: str | None
) -> Subject:
    fmt, name = source["format"], file.path.name
    key, content = weights.state_dict_of(file.content, weights_key)
    tensors = weights.checked_tensors(content)
    state, wrappers = formats.unwrapped(tensors)
    spec, num_classes = formats.net_of(fmt, state)
    if stride_in is not None:
        spec = dataclasses.replace(spec, stride_in=stride_in)
    net = build_empty(spec, num_classes)
    formats.load_into(net, state, fmt)
    source |= {"weights_key": key or None, "wrappers": wrappers}
    training: dict[str, Any] = {"source": source}
    if file.about is not None:  # ours after all, exported for torchvision
        training = _training(tensors, file.about, source)
    notes = [f"{name}: took {one_line(key)} of its contents"] if key else []
    notes += [f"{name}: took {', '.join(wrappers)} out of the keys"] if wrappers else []
    return Subject(file.path.stem, net.eval(), spec, num_classes, notes=tuple(notes), **training)


def _ours(file: WeightsFile, source: dict[str, Any]) -> Subject:
    if file.about is not None:
        if file.about.get("keys") == "torchvision":
            raise ValueError("has torchvision's keys; use format=torchvision")
        subject = _with_net(weights.checked_tensors(file.content), file.about, source)
        return dataclasses.replace(subject, name=file.path.stem)
    folder = RunFolder(file.path.absolute().parent.parent)
    if not isinstance(file.content.get("model"), Mapping) or not folder.config_path.is_file():
        raise ValueError(
            "does not name its net; expected a file of resnet_repro.export, "
            "or a checkpoint in its run folder"
        )
    subject = _of_checkpoint(file, folder, Config.from_mapping(folder.config()), source)
    return dataclasses.replace(subject, name=f"{subject.name}_iter{subject.source['iter']}")


def _of_checkpoint(
    file: WeightsFile, folder: RunFolder, config: Config, source: dict[str, Any]
) -> Subject:
    """Build the net of a checkpoint of a run, which must have its digest."""
    if reason := damage(file.path):  # torch.load accepts flipped bits
        raise ValueError(reason)
    state, iteration = file.content.get("model"), file.content.get("iteration")
    if not isinstance(state, Mapping) or not isinstance(iteration, int):
        raise ValueError("holds no model")
    about = about_run(config, folder, iteration)
    subject = _with_net(weights.checked_tensors(state), about, source)
    return dataclasses.replace(subject, config=config)


def _with_net(
    state: dict[str, Tensor], about: Mapping[str, Any], source: dict[str, Any]
) -> Subject:
    """Build the net that ``about`` describes and load our state dict into it."""
    fc = state.get("head.fc.weight")
    if fc is None or fc.ndim != 2:
        raise ValueError("holds no weights of ours, head.fc.weight is missing")
    spec = _named(NetSpec, about, "model")
    if spec.depth > len(state):  # before millions of layers are built for a few tensors
        raise ValueError(f"names a net of depth {spec.depth} and holds {len(state)} tensors")
    net = build_empty(spec, fc.shape[0])
    formats.load_into(net, state)
    name = f"{about.get('name')}_{about.get('profile')}_seed{about.get('seed')}"
    return Subject(name, net.eval(), spec, fc.shape[0], **_training(state, about, source))


def _training(
    state: Mapping[str, Tensor], about: Mapping[str, Any], source: dict[str, Any]
) -> dict[str, Any]:
    """What is known of a training, null where it is not, as attributes of a subject."""
    if about.get("weights_sha256") not in (None, weights.tensors_digest(state)):
        raise ValueError("its weights were changed after they were exported")
    run = f"{about.get('profile')}/{about.get('name')}/seed{about.get('seed')}"
    iteration, log, precision = (about.get(k) for k in ("iter", "metrics_sha256", "precision"))
    digests = about.get("digests")
    parts = digests.items() if isinstance(digests, Mapping) else ()
    origin = {
        "run": one_line(run),
        "iter": iteration if isinstance(iteration, int) else None,
        "metrics_sha256": log if _DIGEST.fullmatch(str(log)) else None,
    }
    return {
        "source": source | origin,
        "data": _named(DataConfig, about, "data"),
        "precision": precision if precision in ("fp32", "tf32", "bf16") else None,
        "digests": {str(part): str(d) for part, d in parts if _DIGEST.fullmatch(str(d))},
    }


def _named(schema: type[T], about: Mapping[str, Any], key: str) -> T:
    values = about.get(key)
    if not isinstance(values, Mapping):
        raise ValueError(f"does not name its net: {key} is missing")
    return build(schema, values, f"{key}.")
