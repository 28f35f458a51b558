"""Run one of several workers of a run. Reads the run folder, never Hydra.

Torch's launcher starts one for each device: ``torchrun ... -m resnet_repro.worker RUN_DIR``. On one
machine ``resnet_repro.train`` does that, on several the cluster's batch script
(``trainer.launcher=external`` makes the folder).
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from resnet_repro.exits import exit_code, guard_streams, notify
from resnet_repro.progress import Progress, RunProgress
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.signals import end_with_parent, stop_on_signals
from resnet_repro.training.workers import ATTENDED, Channel


def progress_of(folder: RunFolder) -> RunProgress:
    """Return the progress line of a run whose workers the user's own torchrun started."""
    config = folder.config()
    label = f"{config['name']} {config['profile']} seed {config['seed']}"
    return Progress().begin(label, config["recipe"]["max_iters"])


def main() -> None:
    """Run one worker; its rank comes from torchrun's environment, its exit code is the command's.

    Stopped and saved is exit code 0, or the launcher would take it for a failure: ``status.json``
    says ``preempted``. Torch is imported only once signals are noted: that takes seconds, in which
    a scheduler may give its warning.
    """
    end_with_parent()
    guard_streams()
    rank, code = int(os.environ.get("RANK", 0)), 0
    channel = Channel(rank) if ATTENDED in os.environ else None
    with stop_on_signals(alone=False) as stop_asked:
        try:
            if channel is not None:
                channel.report("hello")
            from resnet_repro.training.distributed import leave, world_from_env
            from resnet_repro.training.run import TrainingRun

            folder = RunFolder(Path(sys.argv[1]))
            watcher = channel or progress_of(folder)
            TrainingRun(folder, watcher, stop_asked, world_from_env()).finish()
            leave()
            if channel is not None:
                channel.report("bye")
        except Exception as error:
            code = exit_code(error) or 1
            if channel is not None:
                channel.failed(error)
            elif exit_code(error) is None:
                traceback.print_exception(error)
            else:
                notify(f"error: {error} (worker {rank})")
    sys.stdout.flush()
    os._exit(code)  # not waiting for those that no longer answer


if __name__ == "__main__":
    main()
