"""One of several workers of a run, in a process of its own. Reads the run folder, never Hydra.

Torch's launcher starts one for each device: ``torchrun ... -m resnet_repro.worker RUN_DIR``. On one
machine ``resnet_repro.train`` sees to that, on several the cluster's batch script
(``trainer.launcher=external`` makes the folder).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from resnet_repro.exits import exit_code
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.signals import end_with_parent, stop_on_signals
from resnet_repro.training.channel import ATTENDED, Attended, Unattended


def main() -> None:
    """Be one of several workers, placed by the launcher's environment; exit code as the command's.

    Stopped and saved is exit code 0, or the launcher would take it for a failure: ``status.json``
    says ``preempted``. Torch is imported only once signals are noted: that takes seconds, in which
    a scheduler may give its warning.
    """
    end_with_parent()
    rank = int(os.environ.get("RANK", 0))
    teller = Attended(rank) if ATTENDED in os.environ else Unattended(rank)
    code = 0
    with stop_on_signals(alone=False) as stop_asked:
        try:
            teller.tell("hello")
            from resnet_repro.training.distributed import leave, place
            from resnet_repro.training.run import Run

            state = Run(RunFolder(Path(sys.argv[1])), teller, stop_asked, place()).finish()
            leave()
            teller.tell("bye", state=state)
        except Exception as error:
            teller.failed(error)
            code = exit_code(error) or 1
    sys.stdout.flush()
    os._exit(code)  # not waiting for those that no longer answer


if __name__ == "__main__":
    main()
