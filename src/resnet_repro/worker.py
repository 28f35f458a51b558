"""Run one of several workers of a run. Reads the run folder, never Hydra.

On one machine ``resnet_repro.train`` starts one for each device, on several the cluster's batch
script does: ``torchrun ... -m resnet_repro.worker RUN_DIR`` (``trainer.launcher=external`` makes
the folder).
"""

import os
import sys
import traceback
from pathlib import Path

from resnet_repro.config import Config
from resnet_repro.exits import exit_code, guard_streams, notify
from resnet_repro.progress import Progress
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.signals import end_with_parent, stop_on_signals
from resnet_repro.training.workers import ATTENDED, Channel


def main() -> None:
    """Run one worker; its rank comes from the environment, its exit code is the command's.

    Stopped and saved is exit code 0, or torchrun would take it for a failure: ``status.json``
    says ``preempted``. Torch is imported only once signals are noted: that takes seconds, in which
    a scheduler may give its warning.
    """
    end_with_parent()
    guard_streams()
    rank, code = int(os.environ.get("RANK", 0)), 0
    channel = Channel(int(os.environ[ATTENDED])) if ATTENDED in os.environ else None
    with stop_on_signals(alone=False) as stop_asked:
        try:
            from resnet_repro.training.distributed import leave, world_from_env
            from resnet_repro.training.run import TrainingRun

            folder = RunFolder(Path(sys.argv[1]))
            config = Config.from_mapping(folder.config())
            watcher = channel or Progress().begin(config.label, config.recipe.max_iters)
            TrainingRun(folder, watcher, stop_asked, world_from_env()).finish()
            leave()
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
