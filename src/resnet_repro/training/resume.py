"""Going on from a checkpoint: only with what it was made with."""

from __future__ import annotations

from typing import Any

from resnet_repro.runs.folder import RunFolder
from resnet_repro.same_run import differences
from resnet_repro.training import checkpoint
from resnet_repro.training.errors import CheckpointError
from resnet_repro.training.parts import Parts
from resnet_repro.training.state import TrainState


def contents(parts: Parts, state: TrainState) -> dict[str, Any]:
    """What a checkpoint of this run holds, but for the length of its metrics.

    With several workers all call it.
    """
    made_with = {
        "config": parts.config.as_mapping(),
        "precision": parts.setup.precision,
        "world_size": parts.world.size,
        "data": parts.images.digests,
    }
    return state.state_dict() | made_with


def resume(folder: RunFolder, parts: Parts, state: TrainState) -> dict[str, Any] | None:
    """Bring ``state`` to the newest good checkpoint and return that; ``None`` where there is none.

    Rank 0 reads first: it is the one that sets damaged files aside.

    Raises:
        CheckpointError: none can be trusted, or it was made by another run or in another way.
    """
    saved = parts.world.rank0_first(lambda: checkpoint.load_newest(folder.checkpoints))
    if saved is None:
        return None
    refuse_another_run(folder, parts, saved)
    refuse_another_net(folder, state, saved["model"])
    state.load_state_dict(saved)
    return saved


def refuse_another_run(folder: RunFolder, parts: Parts, saved: dict[str, Any]) -> None:
    """Raise where the checkpoint's configuration, precision, workers or data are others."""
    before, now = saved["precision"], parts.setup.precision
    if before != now:
        raise CheckpointError(
            f"{folder.path}: begun in {before}, this machine would go on in {now}; "
            f"add trainer.precision={before} to go on as it began"
        )
    workers = saved["world_size"], parts.world.size
    if workers[0] != workers[1] and not parts.config.trainer.allow_new_world_size:
        raise CheckpointError(
            f"{folder.path}: begun with trainer.devices={workers[0]}, now {workers[1]}; "
            "add trainer.allow_new_world_size=true to go on with the same batches in other shares"
        )
    changed = differences(saved["config"], parts.config.as_mapping())
    for expected in ("trainer.devices", "trainer.precision", "name"):  # above; a folder renamed
        changed.pop(expected, None)
    if changed:
        listed = "; ".join(f"{key} was {old}, now {new}" for key, (old, new) in changed.items())
        raise CheckpointError(f"{folder.checkpoints}: made by another run ({listed})")
    if saved["data"] != parts.images.digests:
        others = [
            name
            for name, digest in parts.images.digests.items()
            if saved["data"].get(name) != digest
        ]
        raise CheckpointError(
            f"{folder.checkpoints}: made on other data ({', '.join(others)} changed since)"
        )


def refuse_another_net(folder: RunFolder, state: TrainState, saved: dict[str, Any]) -> None:
    """Raise where names or shapes of the weights are not those of the net."""
    before = {name: list(value.shape) for name, value in saved.items()}
    now = {name: list(value.shape) for name, value in state.model.state_dict().items()}
    if before != now:
        names = sorted(name for name in before | now if before.get(name) != now.get(name))
        first = f"{names[0]} is {before.get(names[0])} there and {now.get(names[0])} in the net"
        raise CheckpointError(
            f"{folder.checkpoints}: made by another net ({len(names)} weights differ; {first})"
        )
