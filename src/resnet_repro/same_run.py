"""When two configurations, logged or asked for, are the same run. No torch, no Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resnet_repro.config import Config
from resnet_repro.runs.keys import flatten

# Where and on what a run is done; a finished run is the same run whatever these say. The request
# `precision: auto` counts as asked: what it became stands in meta.json.
_PLACE = (
    "runs_dir",
    "data.root",
    "data.source",
    "data.on_corrupt",
    "evaluation.batch_size",
    "probes.signals",
    "probes.response_images",
    "trainer.device",
    "trainer.threads",
    "trainer.graph",
    "trainer.compile",
    "trainer.concurrent",
    "trainer.loader_workers",
    "trainer.launcher",
    "trainer.timeout_seconds",
    "trainer.allow_new_world_size",
    "trainer.checkpoint_every_iters",
    "logger.kind",
    "logger.mode",
    "logger.project",
)


def filled(values: Mapping[str, Any]) -> dict[str, Any]:
    """A logged configuration with the defaults of keys that came after it was written.

    A new key's default is what the code did before there was the key.
    """
    defaults = Config().as_mapping()
    return {
        key: defaults.get(key, {}) | dict(value) if isinstance(value, Mapping) else value
        for key, value in (defaults | dict(values)).items()
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values make two configurations different runs, with both values.

    Keys that say only where and on what a run is done are passed over; a key that one lacks has
    its default there, as in a run that is older than the key.
    """
    before, after = flatten(filled(old)), flatten(filled(new))
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if key not in _PLACE and before.get(key) != after.get(key)
    }
