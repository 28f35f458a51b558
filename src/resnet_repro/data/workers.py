"""Processes that decode pictures: work spread over them, and what ends them and waits for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.util import get_temp_dir
from types import FrameType
from typing import TypeVar

from resnet_repro.data import DataError, StoppedError
from resnet_repro.runs.provenance import usable_cores
from resnet_repro.runs.signals import STOP_SIGNALS

Task = TypeVar("Task")
Result = TypeVar("Result")
Handler = Callable[[int, FrameType | None], object]

# A socket's path has 107 bytes; processes add "/pymp-xxxxxxxx/listener-xxxxxxxx" to the folder.
_SOCKET_FOLDER_BYTES = 107 - 20
_SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


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
        StoppedError: a stop signal came; tasks that are under way are finished first.
    """
    from tqdm import tqdm  # here: a host with torch alone has none, and no pictures to prepare

    count = min(processes or usable_cores(), len(tasks))
    terminal = sys.stderr.isatty()
    with (
        stop_signals_noted() as stopped,
        tqdm(total=len(tasks), desc=label, mininterval=0.2 if terminal else 10) as bar,
    ):
        results = map(function, tasks) if count <= 1 else _spread(function, tasks, count, stopped)
        for result in results:
            yield result
            bar.update()
            if stopped:
                raise StoppedError(f"{label}: stopped by a signal; run it again")


def ignore_interrupts() -> None:
    """Leave Ctrl-C and the scheduler's stop signal to the parent, which ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def stop_signals_noted() -> Iterator[list[int]]:
    """Give a list of the stop signals that came; each reaches its own handler, too.

    Those that ``stop_on_signals`` noted before the block count: the wait must not begin then.
    """
    caught: list[int] = []
    before = {int(number): signal.getsignal(number) for number in STOP_SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        handler = before[number]
        if callable(handler):
            handler(number, frame)

    note.asked = caught  # type: ignore[attr-defined]
    # A signal without a handler of Python ends the process at once, and shall.
    with handled_by(note, [n for n, handler in before.items() if callable(handler)]):
        for handler in before.values():
            caught.extend(getattr(handler, "asked", ()))
        yield caught


@contextmanager
def handled_by(handler: Handler, numbers: Sequence[int]) -> Iterator[None]:
    """Handle some signals in the block, those apart that are ignored; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        numbers = ()
    before = {number: signal.getsignal(number) for number in numbers}
    before = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def prepare_sockets() -> None:
    """Let processes meet in a folder whose path leaves room for a socket's name.

    Where that of temporary files is too long, a worker could not send its batches, and its parent
    would wait for them for ever.

    Raises:
        DataError: there is no such folder.
    """
    before = tempfile.tempdir
    places = [tempfile.gettempdir(), *_SHORT_FOLDERS]
    short = [p for p in places if len(os.fsencode(p)) + 32 <= 107 and os.access(p, os.W_OK)]
    try:
        tempfile.tempdir = short[0] if short else before
        folder = get_temp_dir()  # made once, and used by every worker
    finally:
        tempfile.tempdir = before
    if len(os.fsencode(folder)) > _SOCKET_FOLDER_BYTES:
        raise DataError(
            f"{folder} is too long a path for the sockets of decoding processes; set TMPDIR to a "
            "shorter folder, or trainer.loader_workers=0"
        )


def _spread(
    function: Callable[[Task], Result], tasks: Sequence[Task], count: int, stopped: Sequence[int]
) -> Iterator[Result]:
    # Spawned, not forked: the parent may hold locks of threads (torch's) that a fork would copy.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin_worker)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * count:  # results that wait to be taken lie in memory
                yield _result(waiting.popleft(), stopped)
        while waiting:
            yield _result(waiting.popleft(), stopped)
    except BrokenProcessPool as error:
        raise DataError(
            "a process that decodes pictures was killed, perhaps for want of memory; run it again"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[Result], stopped: Sequence[int]) -> Result:
    """Wait for a result, and look for a stop signal while waiting."""
    while not wait([future], timeout=0.5).done:
        if stopped:
            raise StoppedError("preparing was stopped by a signal; run it again")
    return future.result()


def _begin_worker() -> None:
    ignore_interrupts()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when the parent was killed and can no longer do so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
