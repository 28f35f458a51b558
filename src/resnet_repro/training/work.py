"""A worker's share of a run, from its folder to the state it ends in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from resnet_repro.mirror import Mirror
from resnet_repro.runs.atomic import remove_left_overs
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.lock import WORK, owned
from resnet_repro.training.distributed import SOLO, World
from resnet_repro.training.errors import DivergedError
from resnet_repro.training.lanes import Turns, finish
from resnet_repro.training.parts import Watcher
from resnet_repro.training.run import run


def work(
    folder: RunFolder, watcher: Watcher, stop_asked: Callable[[], bool], world: World = SOLO
) -> str:
    """Do this worker's share: ``finished`` or ``preempted``. Rank 0 keeps ``status.json`` true.

    Raises:
        Exception: whatever stopped the run; its status then says ``failed`` or ``diverged``.
    """
    return finish(work_in_turns(folder, watcher, stop_asked, world))


def work_in_turns(
    folder: RunFolder, watcher: Watcher, stop_asked: Callable[[], bool], world: World = SOLO
) -> Turns[str]:
    """As :func:`work`, pausing after each iteration."""
    states = {True: "finished", False: "preempted"}
    if world.rank != 0:
        return states[(yield from run(folder, world, watcher, lambda _: None, stop_asked))]
    with contextlib.closing(Mirror(folder)) as mirror, owned(folder.path, WORK, patience=20):
        remove_left_overs(folder.path, folder.checkpoints)
        kept = {key: folder.status().get(key, 0) for key in ("iter", "max_iters", "restarts")}

        def running(iteration: int) -> None:
            kept["iter"] = iteration
            folder.write_status("running", **kept)

        try:
            turns = run(folder, world, watcher, running, stop_asked, mirror.beside)
            state = states[(yield from turns)]
        except Exception as error:
            diverged = isinstance(error, DivergedError)
            kept["reason"] = str(error) if diverged else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # the disk may be full: tell of that, not of this
                folder.write_status("diverged" if diverged else "failed", **kept)
            raise
        folder.write_status(state, **kept)
        return state
