"""Work on pictures spread over processes, with progress; the results do not depend on how many."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from resnet_repro.data import DataError
from resnet_repro.runs.provenance import usable_cores

Task = TypeVar("Task")
Result = TypeVar("Result")


def map_chunks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    label: str,
    processes: int = 0,
) -> Iterator[Result]:
    """Yield ``function(task)`` in the order of ``tasks``, each worked on in some process.

    Args:
        function: at the top level of a module, so that another process can find it.
        tasks: what it is called with; they are sent over a pipe.
        label: of the progress bar.
        processes: 0 for one for each core this process may use; 1 works right here.

    Raises:
        DataError: a worker process was killed, most likely for want of memory.
    """
    from tqdm import tqdm  # here: a host with torch alone has none, and no pictures to prepare

    count = min(processes or usable_cores(), len(tasks))
    terminal = sys.stderr.isatty()
    with tqdm(total=len(tasks), desc=label, mininterval=0.2 if terminal else 10) as bar:
        for result in map(function, tasks) if count <= 1 else _spread(function, tasks, count):
            yield result
            bar.update()


def ignore_interrupts() -> None:
    """Leave Ctrl-C and the scheduler's stop signal to the parent, which ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _spread(
    function: Callable[[Task], Result], tasks: Sequence[Task], count: int
) -> Iterator[Result]:
    # Spawned, not forked: the parent may hold locks of threads (torch's) that a fork would copy.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * count:  # results that wait to be taken lie in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes pictures was killed, perhaps for want of memory; run it again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the parent was killed and can no longer do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
