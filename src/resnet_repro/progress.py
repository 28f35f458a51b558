"""Show the progress of runs: one line, with a bar and the remaining time.

On a terminal the line is redrawn and fitted to its width; elsewhere (CI, cluster logs) a line is
printed at intervals that grow with the run. No colours anywhere.

Times are measured in the run, from its first iterations on: loading and downloading do not count,
evaluations and checkpoints do. A young estimate is given as a range.
"""

import os
import sys
import time
from collections.abc import Sequence
from typing import TextIO

DOING = {"load": "loading", "evaluate": "evaluating"}  # shown instead of the rate
# Where the output is not a terminal: seconds between two lines, and a line for each 2 % at most.
QUIET_SECONDS, QUIET_SHARE, QUIET_AT_MOST = 10.0, 1 / 50, 600.0
REDRAW_SECONDS = 0.2
WARM = 5  # untimed iterations: kernels are chosen, graphs captured
MARK_SECONDS, MARKS = 120.0, 5  # the rate is that of the last ten minutes
YOUNG_SECONDS = 60.0  # of training measured, below which an estimate is given as a range,
YOUNG_RANGE = (0.8, 1.6)  # from and to these multiples of it
BAR, LABEL = 8, 10  # least characters of the bar and of a shortened label
FIRST = 3  # facts that matter more than a long label


class Watcher:
    """An observer of a run; this one ignores all."""

    def enter(self, phase: str, iteration: int) -> None:
        """Note that a phase begins: ``load``, ``train``, ``evaluate``, ``save`` or ``end``."""

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Note an iteration; ``top1_err`` is the last logged training error, percent."""


def duration(seconds: float) -> str:
    """Format seconds: ``45 s``, ``3 min 20 s``, ``12 min``, ``2 h 05 min``."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 600:
        return f"{total // 60} min {total % 60:02d} s"
    minutes = round(total / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def written(seconds: float, *, young: bool) -> str:
    """Format an estimate; a young one as a range: ``8 to 16 min``."""
    low, high = (share * seconds for share in YOUNG_RANGE)
    if not young or high < 2:
        return duration(seconds)
    size, unit = (1, "s") if high < 90 else (60, "min") if high < 90 * 60 else (3600, "h")
    digits = int(unit == "h" and high < 10 * size)
    return f"{low / size:.{digits}f} to {high / size:.{digits}f} {unit}"


def pace(rate: float) -> str:
    """Format iterations a second, slow ones as seconds an iteration; empty where unknown."""
    if not rate:
        return ""
    return f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"


class RunProgress(Watcher):
    """The position of one run, and its speed since the warm-up.

    ``estimate`` are its expected seconds, compared only with those of other runs.
    """

    def __init__(self, shown: "Progress", label: str, max_iters: int, estimate: float):
        self._shown, self.label, self.max, self.estimate = shown, label, max_iters, estimate
        self.iteration, self._phase, self._lr = 0, "load", 0.0
        self._top1_err: float | None = None
        self._first, self._updated = 0, 0.0
        self._marks: list[tuple[float, int]] = []  # time and iteration, from the warm-up on

    def enter(self, phase: str, iteration: int) -> None:
        """Note the phase."""
        if self._phase == "load" and phase == "train":
            self.iteration = self._first = iteration
        self._phase = phase
        self._shown.show(due=self._shown.is_terminal)

    def update(self, iteration: int, top1_err: float | None, lr: float) -> None:
        """Note an iteration."""
        self._updated = now = time.monotonic()
        self.iteration, self._top1_err, self._lr = iteration, top1_err, lr
        if self._marks:
            is_due = now - self._marks[-1][0] >= MARK_SECONDS
        else:
            is_due = iteration - self._first >= WARM
        if is_due:
            self._marks.append((now, iteration))
        self._shown.show(due=iteration == self.max)

    @property
    def share(self) -> float:
        """Share done of what this process has to do of the run, 0 to 1."""
        return (self.iteration - self._first) / max(1, self.max - self._first)

    @property
    def spent(self) -> float:
        """Seconds from the warm-up to the last update."""
        return self._updated - self._marks[0][0] if self._marks else 0.0

    @property
    def rate(self) -> float:
        """Iterations a second over the last minutes; 0 at first."""
        if not self.spent:
            return 0.0
        began, first = self._marks[-MARKS:][0]
        return max(0, self.iteration - first) / (self._updated - began)

    @property
    def left(self) -> float | None:
        """Seconds left, evaluations and checkpoints included; ``None`` at first."""
        return (self.max - self.iteration) / self.rate if self.rate else None

    @property
    def is_young(self) -> bool:
        """Whether too little was measured to rely on."""
        return self.spent < YOUNG_SECONDS and self.share < 0.5

    def facts(self, total: str) -> list[str]:
        """What is shown of a single run, the most important first; ``total`` of all runs."""
        left = "" if self.left is None else written(self.left, young=self.is_young)
        return [
            total or (f"{left} left" if left else ""),
            "" if self._top1_err is None else f"err {self._top1_err:.1f} %",
            DOING.get(self._phase) or pace(self.rate),
            f"{left} for this run" if total and left else "",
            f"lr {self._lr:g}" if self._lr else "",
            f"{self.iteration}/{self.max}" if self._lr else "",
        ]


class Progress:
    """The line of a command that trains one run or several, in turn or at the same time.

    ``estimates`` are the expected seconds of each run, in order; only their ratios count, and
    those of runs to come are scaled by how right they were so far.
    """

    def __init__(self, estimates: Sequence[float] = (1.0,), stream: TextIO | None = None):
        self._estimates = list(estimates)
        self._stream = stream or sys.stderr
        self._begun: list[RunProgress] = []
        self._active: list[RunProgress] = []
        self._shown_at = time.monotonic()
        self.is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._is_drawn = False

    def begin(self, label: str, max_iters: int) -> RunProgress:
        """Show the next run."""
        run = RunProgress(self, label, max_iters, self._estimates[len(self._begun)])
        self._begun.append(run)
        self._active.append(run)
        return run

    def end(self, run: RunProgress) -> None:
        """Note that a run is over, however it ended."""
        self._active.remove(run)
        if self._is_drawn and not self._active:
            print(file=self._stream, flush=True)
            self._is_drawn = False

    def show(self, *, due: bool = False) -> None:
        """Redraw the line: at once if ``due``, else if the last time was long enough ago.

        Off a terminal, only the end of a single run is due.
        """
        now = time.monotonic()
        pause = REDRAW_SECONDS
        if not self.is_terminal:
            due = due and len(self._active) == 1
            spent = max(run.spent for run in self._active)
            pause = min(max(QUIET_SECONDS, QUIET_SHARE * spent), QUIET_AT_MOST)
        if not due and now - self._shown_at < pause:
            return
        self._shown_at = now
        position, label, share, facts = self._view()
        if self.is_terminal:
            line = _fitted(position, label, share, facts, _columns(self._stream) - 1)
            print(f"\r{line}", end="", file=self._stream, flush=True)
            self._is_drawn = True
        elif facts:
            print(", ".join([position + label, *facts]), file=self._stream, flush=True)

    def _view(self) -> tuple[str, str, float, list[str]]:
        """Return position, label, share for the bar, and facts, the most important first."""
        runs, count = self._active, len(self._estimates)
        total = self._left() if count > 1 else ""
        if len(runs) == 1:
            (run,) = runs
            position, label = f"[{len(self._begun)}/{count}] " if count > 1 else "", run.label
            share, facts = run.iteration / run.max, run.facts(total)
        else:
            position, label = "", f"{len(self._begun) - len(runs)} of {count} runs done"
            done = sum(run.estimate * run.share for run in self._begun)
            share = done / (sum(self._estimates) or 1.0)
            each = [f"{run.label} {run.iteration}/{run.max}" for run in runs]
            facts = [total, pace(sum(run.rate for run in runs)), *each]
        return position, label, min(1.0, share), [fact for fact in facts if fact]

    def _left(self) -> str:
        """Time left for all runs, as text; empty while nothing was measured."""
        measured = [run for run in self._begun if run.left is not None]
        spent = sum(run.spent + (run.left or 0.0) * (run in self._active) for run in measured)
        # Of a run that failed only a share of its estimate was needed.
        parts = sum(run.estimate * (run in self._active or run.share) for run in measured)
        if not (spent and parts):
            return ""
        scale = spent / parts
        left = scale * sum(self._estimates[len(self._begun) :])
        for run in self._active:
            left += run.estimate * scale if run.left is None else run.left
        left /= len(self._active)
        return f"{written(left, young=all(run.is_young for run in measured))} for all runs"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _fitted(position: str, label: str, share: float, facts: Sequence[str], columns: int) -> str:
    """Fill a line with as many facts as fit, and the rest with the bar."""
    around = len(f"{position} || {share:.0%}, ")
    label = _shortened(label, max(LABEL, columns - around - BAR - len(", ".join(facts[:FIRST]))))
    room = columns - around - BAR - len(label)
    while facts and len(", ".join(facts)) > room:
        facts = facts[:-1]
    text = ", ".join([f"{share:.0%}", *facts])
    bar = max(0, columns - len(f"{position}{label} || {text}"))
    return f"{position}{label} |{'#' * int(share * bar):{bar}}| {text}"[:columns]


def _shortened(text: str, length: int) -> str:
    """Cut the middle out of ``text`` where it is longer than ``length``."""
    if len(text) <= length:
        return text
    tail = (length - 3) // 2
    return f"{text[: length - 3 - tail]}...{text[len(text) - tail :]}"
