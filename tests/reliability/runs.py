"""Small real runs: in processes that can be hurt, and undisturbed ones to compare them with.

What a run is doing when it is hurt, what is left of it, and what a trial is made of.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ranks import FEW_IMAGES, begin_as_is, fingerprint, small_job
from reliability.record import Outcome, Record
from resnet_repro.exits import PREEMPTED
from resnet_repro.paths import python_path
from resnet_repro.progress import Watcher
from resnet_repro.runs.atomic import crash_point
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import read_metrics
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.training.launch import Job, launch

LIMIT = 600.0  # seconds after which a process counts as hanging
LINGERING = {"mid-write.pt": 1, "mid-load": 4}
PHASES = ("start-up", "load", "train", "evaluate", "save", "end")
KILLED = 137  # exit code
# 12 iterations with checkpoints at 4, 8 and 12 (profile smoke); what differs between them is what
# a resume could forget.
VARIANTS: dict[str, tuple[str, ...]] = {
    "residual": (),
    "plain": ("model.shortcut=none", "recipe.nesterov=true", "trainer.checkpoint_every_iters=3"),
    "gated": ("model.shortcut=gate", "recipe.warmup=iters400", "seed=3"),
    "grouped": ("model.bn_group=8", "trainer.checkpoint_every_iters=1", "seed=1"),
}
# For the real command, whose start takes seconds: long enough to be hit elsewhere too.
LONG = (
    "recipe.max_iters=160",
    "recipe.milestones=[80,120]",
    "trainer.log_every_iters=8",
    "trainer.checkpoint_every_iters=8",
    "evaluation.every_iters=32",
)


class Marks:
    """One byte in a file that another process reads: the phase, where no kill takes it away."""

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_RDWR | os.O_CREAT)

    @property
    def phase(self) -> str:
        return PHASES[(os.pread(self._file, 1, 0) or b"\0")[0]]

    def note(self, phase: str, _: int = 0) -> None:
        os.pwrite(self._file, bytes([PHASES.index(phase)]), 0)


class Noting(Watcher):
    """Calls ``entering`` with each phase of a run that begins, and its iteration."""

    def __init__(self, entering: Callable[[str, int], None]):
        self._entering = entering

    def enter(self, phase: str, iteration: int) -> None:
        self._entering(phase, iteration)


def begin(work: Callable[..., Any], *args: Any) -> Any:
    """Call ``work(*args)`` in a process of its own, on few images."""
    return begin_as_is(_few_images, work, *args)


def _few_images(work: Callable[..., Any], *args: Any) -> None:
    from resnet_repro.data import synthetic

    synthetic.SIZES = FEW_IMAGES
    work(*args)


def do(job: Job, marks: Path | None = None, slow: float = 0.0) -> None:
    """Do ``job`` as the command would, its phase noted in the file ``marks``.

    Each save takes ``slow`` seconds longer, a load, which comes once, four times that.
    """
    from resnet_repro.training import checkpoint

    def linger(name: str) -> None:
        time.sleep(slow * LINGERING.get(name, 0))
        crash_point(name)

    checkpoint.crash_point = linger  # type: ignore[attr-defined]
    watcher = Watcher()
    if marks is not None:
        note = Marks(marks).note
        note("start-up")
        watcher = Noting(note)
    observed(job, watcher)


def observed(job: Job, watcher: Watcher) -> None:
    """Do ``job`` until a signal; the process's exit code is 0 where it came to its end."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    with stop_on_signals() as stop_asked:
        state = launch(job, watcher, stop_asked)
    sys.exit(0 if state in ("finished", "skipped") else PREEMPTED)


def ended(process: Any, limit: float = LIMIT) -> int:
    """Wait for a process of :func:`begin`; its exit code, 124 where it hangs and is killed."""
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        process.join()
        return 124
    return int(process.exitcode)


def environment(**more: str) -> dict[str, str]:
    """Variables of the real command: this source, one thread."""
    return os.environ | {"PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"} | more


def command(job: Job) -> subprocess.Popen[str]:
    """Start the real command that does ``job``; what it says on standard error can be read."""
    return subprocess.Popen(
        [sys.executable, "-m", "resnet_repro.train", *job.words],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def by_command(job: Job) -> tuple[int, str]:
    """Do ``job`` by the real command: its exit code, and what it says on standard error."""
    process = command(job)
    errors = process.communicate(timeout=LIMIT)[1]
    return process.returncode, errors


def at_work(folder: Path) -> dict[int, str]:
    """Processes that name ``folder`` on their command line: id -> rank or command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            values = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(str(folder) in word for word in arguments):
            rank = next((v[5:].decode() for v in values if v.startswith(b"RANK=")), "")
            found[int(entry.name)] = rank or "command"
    return found


def seconds_until_gone(folder: Path, limit: float = 60.0) -> tuple[float, int]:
    """Seconds until no process names ``folder`` any more, and how many are left after ``limit``."""
    began = time.monotonic()
    while (left := at_work(folder)) and time.monotonic() - began < limit:
        time.sleep(0.05)
    return round(time.monotonic() - began, 2), len(left)


def judged_from_outside(folder: RunFolder, killed: int) -> str:
    """What a run of the real command was doing when process ``killed`` died, by what it left.

    The loop writes a record, evaluates, saves, in this order. Loading counts as start-up: nothing
    outside tells them apart.
    """
    status = folder.status()
    if status.get("state") != "running" or status.get("pid") != killed:
        return "start-up"
    if any(folder.checkpoints.glob(".*.tmp")) or lonely_digests(folder):
        return "save"
    records = [r for r in read_metrics(folder.metrics_path) if r["kind"] != "event"]
    config = folder.config()
    last = records[-1] if records else {"kind": "", "iter": 0}
    done, every = last["iter"], config["evaluation"]["every_iters"]
    if last["kind"] == "train" and done and done % every == 0:
        return "evaluate"
    if done == config["recipe"]["max_iters"] and status["iter"] == done:
        return "end"
    saved = [int(p.stem.removeprefix("iter_")) for p in folder.checkpoints.glob("iter_*.pt")]
    due = done and done % config["trainer"]["checkpoint_every_iters"] == 0
    if due and (done not in saved or status["iter"] < done):
        return "save"
    return "train"


def lonely_digests(folder: RunFolder) -> list[Path]:
    """Digests without their checkpoint."""
    return [p for p in folder.checkpoints.glob("*.sha256") if not p.with_suffix("").exists()]


def left_overs(folder: RunFolder) -> list[str]:
    """Temporary files, and digests without their checkpoint, that nobody removed."""
    return sorted(p.name for p in (*folder.path.rglob("*.tmp"), *lonely_digests(folder)))


def generations(folder: RunFolder) -> list[Path]:
    return sorted(folder.checkpoints.glob("iter_*.pt"))


@dataclass(frozen=True)
class Reference:
    """A run that nothing disturbed, and how long it took in seconds."""

    computed: dict[str, Any]
    seconds: float

    def verdict(self, folder: RunFolder) -> Outcome:
        """Compare a run that was disturbed and ended with this one."""
        found = fingerprint(folder) if generations(folder) else {}
        differs = sorted(k for k, value in self.computed.items() if value != found.get(k))
        left, kept = left_overs(folder), len(generations(folder))
        fine = folder.is_finished and not differs and not left and kept <= 2
        outcome: Outcome = {"ok": fine, "identical": folder.is_finished and not differs}
        if not fine:
            state = folder.status().get("state")
            outcome |= {"state": state, "differs": differs, "left": left, "generations": kept}
        return outcome

    def after(self, job: Job, *codes: int | None, **facts: Any) -> Outcome:
        """Rerun ``job``, which ended with ``codes``, to its end and compare it."""
        return {**facts, "codes": [*codes, finish(job)], **self.verdict(job.folder)}


def finish(job: Job) -> int:
    """Rerun ``job`` in a process of its own until it ends; return its exit code."""
    return ended(begin(do, job))


class Trial(NamedTuple):
    """One way of hurting a run; ``do`` gets an empty folder and says what came of it."""

    key: str
    do: Callable[[Path], Outcome]


@dataclass
class Workshop:
    """Where the trials of a part are done, and the undisturbed runs they are compared with.

    ``count`` is how many of what the part counts are wanted (0: all), ``record`` what was found so
    far, ``scratch`` a folder to work in.
    """

    scratch: Path
    count: int
    record: Record
    _made: dict[tuple[str, ...], Reference] = field(default_factory=dict)

    def begun(self, number: int, folder: Path) -> tuple[Reference, Job, str]:
        """A variant, another one for each number: its undisturbed run, one to disturb, its name."""
        name = sorted(VARIANTS)[number % len(VARIANTS)]
        return self.variant(name), small_job(folder, *VARIANTS[name]), name

    def variant(self, name: str) -> Reference:
        return self.undisturbed(*VARIANTS[name])

    def undisturbed(self, *args: str, real: bool = False) -> Reference:
        """The undisturbed small run with ``args``, done at the first call; ``real``: by command.

        SystemExit: it fails, and no trial can be judged.
        """
        if args not in self._made:
            job = small_job(self.scratch / "undisturbed" / str(len(self._made)), *args)
            begin(time.monotonic).join()  # the first fork waits for its server's imports
            began = time.monotonic()
            code, why = by_command(job) if real else (finish(job), "")
            seconds = time.monotonic() - began
            if code:
                raise SystemExit(f"{job.folder.path}: exit code {code} {why}")
            self._made[args] = Reference(fingerprint(job.folder), seconds)
        return self._made[args]


Trials = Callable[[Workshop], Iterator[Trial]]
