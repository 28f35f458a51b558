"""A net to be tested: built from a weights file or a finished run, with its origin."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from resnet_repro.config import Config, DataConfig
from resnet_repro.evaluation.weights import (
    WeightsError,
    WeightsFile,
    checked_tensors,
    one_line,
    read,
    state_dict_of,
    tensors_digest,
)
from resnet_repro.models import formats
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import count_params
from resnet_repro.models.spec import NetSpec
from resnet_repro.options import ConfigError, build
from resnet_repro.runs.folder import RunFolder, RunFolderError

OURS = "ours"
FORMATS = (OURS, *formats.FORMATS)


@dataclass(frozen=True)
class Subject:
    """A net on the CPU, float32, in evaluation mode.

    ``name`` is a word for file names, ``source`` what a result records of where the weights come
    from, ``spec`` which net it is. ``data`` says which data set and which mean
    the net was trained with, ``precision`` in which, and ``digests`` are of those data; there are
    none for other people's nets. ``config`` is that of a run. ``notes`` name what was chosen from a
    file or changed in its keys.
    """

    name: str
    net: nn.Module
    spec: NetSpec
    num_classes: int
    source: dict[str, Any]
    data: DataConfig | None = None
    precision: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    config: Config | None = None
    notes: tuple[str, ...] = ()

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
    torchvision-keyed bottlenecks have the stride, which their keys do not show.

    Raises:
        WeightsError: the file is refused, is not of this format, or does not name its net.
    """
    file = read(path)
    source = {"file": path.name, "sha256": file.sha256, "bytes": file.bytes, "format": fmt}
    if fmt == OURS:
        return _ours(file, source)
    key, state = state_dict_of(file, weights_key)
    tensors = checked_tensors(file, state)
    try:
        plain, wrappers = formats.unwrapped(tensors)
        spec, num_classes = formats.net_of(fmt, plain)
        if stride_in is not None:
            spec = dataclasses.replace(spec, stride_in=stride_in)
        net = build_meta(spec, num_classes).to_empty(device="cpu")
        net.load_state_dict(formats.convert(fmt, plain, net))
    except ValueError as error:  # StateDictError, and sizes no net has
        raise WeightsError(f"{path}: {one_line(str(error), 400)}") from error
    source |= {"weights_key": key or None, "wrappers": wrappers}
    notes = [f"{path.name}: took {one_line(key)} of its contents"] if key else []
    notes += [f"{path.name}: took {', '.join(wrappers)} out of the keys"] if wrappers else []
    subject = Subject(path.stem, net.eval(), spec, num_classes, source, notes=tuple(notes))
    if file.about is None:
        return subject
    _check_unchanged(file, tensors)  # ours after all, exported for torchvision
    training = _training(file, file.about)
    return dataclasses.replace(subject, source=source | _origin(file.about), **training)


def from_run(path: Path) -> Subject:
    """Build the final net of a finished run.

    Raises:
        RunFolderError: no run there, or it is not finished.
        ConfigError: its configuration is not one of this version's.
        WeightsError: its final checkpoint is missing or damaged.
    """
    folder = RunFolder(path)
    config = Config.from_mapping(folder.config())
    if not folder.is_finished:
        state = folder.status().get("state", "not begun")
        raise RunFolderError(f"{path}: the run is {state}, not finished; train it to its end first")
    file = final_checkpoint(folder, config.recipe.max_iters)
    about = about_run(config, folder, config.recipe.max_iters)
    source = {"sha256": file.sha256, "bytes": file.bytes, "format": OURS} | _origin(about)
    return dataclasses.replace(_with_net(file, file.content["model"], about, source), config=config)


def final_checkpoint(folder: RunFolder, max_iters: int) -> WeightsFile:
    """Read the checkpoint of the last iteration and verify it against its digest.

    Raises:
        WeightsError: missing, damaged or refused.
    """
    path = folder.checkpoints / f"iter_{max_iters:08d}.pt"
    if not path.is_file():
        raise WeightsError(
            f"{path}: no final checkpoint (they are not kept in version control); "
            "use weights=... with an exported file, or train the run again"
        )
    file = read(path)
    digest = path.with_name(path.name + ".sha256")
    try:
        if not digest.is_file():  # a pipe would be waited for
            raise OSError
        expected = digest.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be verified, its digest is unreadable") from error
    if file.sha256 != expected:
        raise WeightsError(f"{path}: damaged, does not have the digest it was written with")
    if not isinstance(file.content.get("model"), Mapping):
        raise WeightsError(f"{path}: holds no model")
    return file


def about_run(config: Config, folder: RunFolder, iteration: int) -> dict[str, Any]:
    """Return what weights must record of their run, to be used without its folder.

    Raises:
        RunFolderError: the folder lacks a part of it.
    """
    pictures, meta = dataclasses.asdict(config.data), folder.meta()
    for place in ("root", "source"):
        del pictures[place]
    return {
        "schema": 1,
        **config.identity,
        "iter": iteration,
        "metrics_sha256": folder.metrics_digest(),
        "precision": meta.get("precision"),
        "digests": meta.get("data", {}).get("digests", {}),
        "model": dataclasses.asdict(config.model),
        "data": pictures,
    }


def _ours(file: WeightsFile, source: dict[str, Any]) -> Subject:
    if file.about is not None:
        about = dict(file.about)
        if about.get("keys") == "torchvision":
            raise WeightsError(f"{file.path}: has torchvision's keys; use format=torchvision")
        subject = _with_net(file, file.content, about, source | _origin(about))
        return dataclasses.replace(subject, name=file.path.stem)
    folder = RunFolder(file.path.absolute().parent.parent)
    state = file.content.get("model")
    if not isinstance(state, Mapping) or not folder.config_path.is_file():
        raise WeightsError(
            f"{file.path}: does not name its net; expected a file of resnet_repro.export, "
            "or a checkpoint in its run folder"
        )
    try:
        config = Config.from_mapping(folder.config())
        about = about_run(config, folder, int(file.content["iteration"]))
    except (KeyError, TypeError, ValueError, RunFolderError) as error:
        raise WeightsError(f"{file.path}: its run folder names no net ({error})") from error
    subject = _with_net(file, state, about, source | _origin(about))
    return dataclasses.replace(subject, name=f"{subject.name}_iter{about['iter']}")


def _with_net(
    file: WeightsFile,
    content: Mapping[str, Any],
    about: Mapping[str, Any],
    source: dict[str, Any],
) -> Subject:
    """Build the net that ``about`` describes and load our state dict into it."""
    state = checked_tensors(file, content)
    fc = state.get("head.fc.weight")
    if fc is None or fc.ndim != 2:
        raise WeightsError(f"{file.path}: holds no weights of ours, head.fc.weight is missing")
    try:
        spec = build(NetSpec, _group(about, "model"), "model.")
        if spec.depth > len(state):  # before millions of layers are built for a few tensors
            raise ConfigError(f"depth {spec.depth} with {len(state)} tensors")
        net = build_meta(spec, fc.shape[0]).to_empty(device="cpu")
    except ValueError as error:
        reason = one_line(str(error), 300)
        raise WeightsError(f"{file.path}: names a net that cannot be built: {reason}") from error
    _load(file, net, state)
    name = f"{about.get('name')}_{about.get('profile')}_seed{about.get('seed')}"
    if file.about is not None:
        _check_unchanged(file, state)
    return Subject(name, net.eval(), spec, fc.shape[0], source, **_training(file, about))


def _check_unchanged(file: WeightsFile, state: Mapping[str, Tensor]) -> None:
    """Refuse an export whose weights are not those that it was written with."""
    digest = (file.about or {}).get("weights_sha256")
    if digest not in (None, tensors_digest(state)):
        raise WeightsError(f"{file.path}: its weights were changed after they were exported")


def _training(file: WeightsFile, about: Mapping[str, Any]) -> dict[str, Any]:
    """Data set, precision and digests of a training, as attributes of a subject."""
    try:
        data = build(DataConfig, _group(about, "data"), "data.")
    except ValueError as error:
        reason = one_line(str(error), 300)
        raise WeightsError(f"{file.path}: names data that do not exist: {reason}") from error
    precision, digests = about.get("precision"), about.get("digests")
    parts = digests.items() if isinstance(digests, Mapping) else ()
    return {
        "data": data,
        "precision": precision if precision in ("fp32", "tf32", "bf16") else None,
        "digests": {str(part): digest for part, digest in parts if _is_digest(digest)},
    }


def _load(file: WeightsFile, net: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{file.path}: {one_line(str(error), 400)}") from error


def _group(about: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    values = about.get(key)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{key} is missing")
    return values


def _origin(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return run, iteration and training that weights come from; null where unknown."""
    run = f"{about.get('profile')}/{about.get('name')}/seed{about.get('seed')}"
    iteration, digest = about.get("iter"), about.get("metrics_sha256")
    return {
        "run": one_line(run, 200),
        "iter": iteration if isinstance(iteration, int) else None,
        "metrics_sha256": digest if _is_digest(digest) else None,
    }


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
