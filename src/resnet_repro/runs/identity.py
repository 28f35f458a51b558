"""Which training a folder holds: a net that was trained again is another net of the same name."""

from __future__ import annotations

import hashlib

from resnet_repro.runs.folder import RunFolder, RunFolderError


def metrics_digest(folder: RunFolder) -> str:
    """SHA-256 of a finished run's ``metrics.jsonl``, which no two trainings have in common.

    Raises:
        RunFolderError: there is none.
    """
    try:
        return hashlib.sha256(folder.metrics_path.read_bytes()).hexdigest()
    except OSError as error:
        raise RunFolderError(f"{folder.metrics_path}: cannot be read ({error.strerror})") from error
