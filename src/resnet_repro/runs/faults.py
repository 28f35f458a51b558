"""Named places at which a run can be made to die, as by a power cut. For tests alone.

``RESNET_REPRO_CRASH_AT=<name>`` ends the process there without any clean-up; ``<name>:3`` at the
third time it comes by. Names of files carry their ending: ``after-fsync.pt``, ``after-fsync.json``.

=================================  =================================================================
``before-tmp<ending>``             :func:`resnet_repro.runs.atomic.write_atomic` has done nothing
``after-write<ending>``            the temporary file is written, perhaps not on the disk
``after-fsync<ending>``            it is on the disk under its temporary name
``after-replace<ending>``          it has its name
``mid-write.pt``                   half of a checkpoint is written
``after-digest.pt``                the digest lies on the disk, the checkpoint does not
``before-prune``, ``after-prune``  around dropping the oldest checkpoint
``mid-line``                       half of a record of the metrics is written
``mid-load``                       a checkpoint is read, nothing of it is used yet
=================================  =================================================================
"""

from __future__ import annotations

import os
from collections import Counter

VARIABLE = "RESNET_REPRO_CRASH_AT"
_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Die here if that is what was asked for."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    wanted, _, turn = asked.partition(":")
    _passed[name] += 1
    if name == wanted and _passed[name] == int(turn or 1):
        os._exit(137)
