"""Do the tests bite? Defects planted one at a time in a copy of the source; each must fail a test.

A defect is an exact replacement of text. Text that is not found any more, or found twice, is an
error: the code has moved on, and the defect must move with it.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from reliability.record import Outcome
from reliability.runs import LIMIT, Trial, Workshop, environment
from resnet_repro.paths import REPOSITORY

COPIED = ("src", "conf", "tests", "benchmarks")
PASSED, FAILED = 0, 1  # pytest's exit codes; others mean that it could not even run


class Defect(NamedTuple):
    """What is wrong, in which file of the package, and which tests must see it."""

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


STOPPED = "test_training.py::test_stopped_and_resumed_gives_the_same_bits[3]"
KILLED = "test_training.py::test_killed_without_warning_goes_back_to_its_checkpoint"
STATE, SAVING, ATOMIC = "training/state.py", "training/checkpoint.py", "runs/atomic.py"

DEFECTS = (
    Defect("momentum is not restored", STATE,
           'self.optimizer.load_state_dict(saved["optimizer"])', "pass", (STOPPED,)),
    Defect("the end of the warm-up is not restored", STATE,
           'self.warmup_exit = saved["warmup_exit"]', "pass",
           ("test_training.py::test_resume_across_the_end_of_the_warm_up_gives_the_same_bits",)),
    Defect("the plateau is not restored", STATE,
           'self.plateau = Plateau(**saved.get("plateau", {}))', "pass",
           ("test_schedule.py::test_a_stopped_run_drops_where_one_that_was_not_stopped_does",)),
    Defect("batch-norm statistics are not restored", STATE,
           'self.model.load_state_dict(saved["model"])',
           'self.model.load_state_dict({k: v for k, v in saved["model"].items()'
           ' if "running" not in k}, strict=False)', (STOPPED,)),
    Defect("the smoothed training error is not restored", STATE,
           'self.window.restore(saved["window"])', "pass", (STOPPED,)),
    Defect("a resumed run repeats a batch", STATE,
           'self.iteration = saved["iteration"]', 'self.iteration = saved["iteration"] - 1',
           (STOPPED,)),
    Defect("flips depend on what the process drew before", "data/order.py",
           "(raw(seed, epoch, FLIP, count) >> np.uint64(63)).astype(bool)",
           "np.random.rand(count) < 0.5",
           (STOPPED, "test_training.py::test_trap_17_a_rerun_gives_the_same_bits_on_the_cpu")),
    Defect("every epoch has the same order", "data/order.py",
           "permutation(seed, epoch, count)",
           "permutation(seed, 0, count)", ("test_data.py",)),
    Defect("records made after the checkpoint stay", "runs/metrics.py",
           "self._file.truncate(keep_bytes)", "pass",
           (KILLED, "test_runs.py::test_metrics_go_back_to_the_checkpoint")),
    Defect("checkpoints are loaded unverified", SAVING,
           "return None if actual == expected else", "return None if actual else",
           ("test_faults.py::test_damage_is_never_loaded[one bit flipped]",)),
    Defect("code in a checkpoint is run", SAVING, "weights_only=True", "weights_only=False",
           ("test_faults.py::test_code_in_a_checkpoint_is_not_run",)),
    Defect("files are written in place", ATOMIC,
           'temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")', "temporary = path",
           ("test_faults.py::test_data_reach_the_disk_before_the_name_does",
            "test_faults.py::test_a_full_disk_is_named_and_costs_no_bit")),
    Defect("a file has its name before its data", ATOMIC,
           "fsync(file.fileno())", "pass",
           ("test_faults.py::test_data_reach_the_disk_before_the_name_does",)),
    Defect("the old checkpoints go before the new one is there", SAVING,
           "    folder = path.parent\n",
           "    folder = path.parent\n"
           "    for old in _newest_first(folder):\n        old.unlink()\n",
           ("test_faults.py::test_a_full_disk_is_named_and_costs_no_bit",)),
    Defect("all checkpoints damaged: begun anew", SAVING,
           'if found or any(folder.glob("*.corrupt")):', "if False:",
           ("test_faults.py::test_all_damaged_stops_instead_of_starting_again",)),
    Defect("a worker stops without asking the others", "training/distributed.py",
           "dist.all_reduce(raised, dist.ReduceOp.MAX)", "pass",
           ("test_ddp.py::test_what_workers_share_and_what_they_do_not",)),
    Defect("workers do not settle their sums before they resume", "training/state.py",
           "    if state.train_net is state.model:\n        return\n    before =",
           "    return\n    before =",
           ("test_ddp.py::test_stopped_and_resumed_gives_the_same_bits[3]",)),
    Defect("workers outlive their command", "runs/signals.py",
           'if sys.platform == "linux":', "if False:",
           ("test_ddp_processes.py",)),
    Defect("a signal ends the run unsaved", "runs/signals.py",
           "if received and alone:", "if alone:",
           ("test_commands.py::test_a_signal_loses_nothing",)),
    Defect("two commands work on one folder", "runs/lock.py",
           "fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass",
           ("test_runs.py::test_the_second_process_is_refused_with_the_name_of_the_first",)),
    Defect("losses that are not numbers go on", STATE,
           "return state.window.share_is_finite(state.iteration) and bool(norm.isfinite())",
           "return True",
           ("test_training.py::test_divergence_is_named_and_final_until_something_changes",)),
)  # fmt: skip


def trials(shop: Workshop) -> Iterator[Trial]:
    """The tests without a defect, then with each (``shop.count`` limits them)."""
    yield Trial("no defect", partial(without_defect, shop))
    for defect in DEFECTS[: shop.count or None]:
        yield Trial(defect.name, partial(planted, shop, defect))


def without_defect(shop: Workshop, _: Path) -> Outcome:
    tests = sorted({test for defect in DEFECTS[: shop.count or None] for test in defect.tests})
    code, summary = tested(copied(shop), tests)
    return {"ok": code == PASSED, "code": code, "summary": summary}


def planted(shop: Workshop, defect: Defect, _: Path) -> Outcome:
    """Plant a defect; a test that names it must fail."""
    repo = copied(shop)
    path = repo / "src" / "resnet_repro" / defect.file
    text = path.read_text(encoding="utf-8")
    path.write_text(with_defect(text, defect), encoding="utf-8")
    try:
        code, summary = tested(repo, defect.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    caught = code == FAILED
    return {"ok": caught, "caught": caught, "code": code, "summary": summary}


def with_defect(text: str, defect: Defect) -> str:
    found = text.count(defect.before)
    if found != 1:
        raise ValueError(f"{defect.file}: found {found} times, not once: {defect.before!r}")
    return text.replace(defect.before, defect.after)


def copied(shop: Workshop) -> Path:
    repo = shop.scratch / "copy"
    if not repo.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        for name in COPIED:
            shutil.copytree(REPOSITORY / name, repo / name, ignore=ignored)
        shutil.copy2(REPOSITORY / "pyproject.toml", repo)
    return repo


def tested(repo: Path, tests: tuple[str, ...] | list[str]) -> tuple[int, str]:
    """Run tests of a copy; pytest's exit code and its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist",
         *(f"tests/{test}" for test in tests)],
        cwd=repo, env=environment(PYTHONPATH=str(repo / "src")), capture_output=True, text=True,
        timeout=2 * LIMIT,
    )  # fmt: skip
    last = [line for line in done.stdout.splitlines() if line.strip()][-1:]
    return done.returncode, re.sub(r" in [\d.]+s.*", "", "".join(last))
