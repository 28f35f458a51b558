"""Words that cannot be meant: each refused in one line, nothing written, by the real command.

A word too many for an experiment that is fine: the list of ``test_config``, which asks the same of
the code that composes. The rest is what only the command meets: files, folders, devices, workers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ranks import small_job
from reliability.processes import command
from reliability.record import Outcome
from reliability.runs import Trial, Workshop
from resnet_repro.exits import CONFIG, DATA
from resnet_repro.training.launch import Job
from test_config import REFUSED

LIMIT = 120.0  # seconds after which a command counts as not refused


@dataclass(frozen=True)
class Row:
    """Arguments (``{here}`` is the folder of the trial) and what the refusal must contain."""

    args: str
    message: str
    code: int = CONFIG
    module: str = "train"
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def described(name: str, text: str, message: str) -> Row:
    args, file = f"--config-dir {{here}} experiment={name}", f"experiment/{name}.yaml"
    return Row(args, message.replace("{file}", f"{{here}}/{file}"), files={file: text})


RUN = "experiment=cifar10_plain20"
SMALL = f"{RUN} data=synthetic profile=smoke trainer.device=cpu"
GLOBAL, TORCHRUN = "# @package _global_\n", {"TORCHELASTIC_RUN_ID": "1"}
MINE = {"file": "mine"}
ROWS = [
    Row("experiment=tiny_plain18 data=cifar10 model.depth=50 model.shortcut=D", "model.shortcut=D"),
    Row("experiment=cifar10_plain20 data=tiny_imagenet", "model.family=cifar: data.name=tiny"),
    Row(f"{RUN} ~model.depth", "~model.depth: an option cannot be taken away"),
    Row(f"{RUN} trainer.devices=129", "trainer.devices=129: must be at most recipe.batch_size=128"),
    Row("--config-name nope", "Cannot find primary config 'nope'"),
    Row(f"--config-dir {{here}}/nope {RUN}", "Additional config directory '{here}/nope' not found"),
    described("tab", f"{GLOBAL}model:\n\tdepth: 20\n", "{file}:3:1: not YAML ("),
    described("twice", f"{GLOBAL}model: {{depth: 20, depth: 32}}\n", "{file}:2:20: not YAML ("),
    described("open", f"{GLOBAL}recipe:\n  milestones: [1,2,\n", "{file}:4:1: not YAML ("),
    described("no", f"{GLOBAL}recipe:\n  nesterov: 'n'\n", "recipe.nesterov=n: must be true or"),
    described("bare", "recipe:\n  lr: 0.2\n", "experiment=bare: its file must begin with"),
    Row(f"{SMALL} recipe.batch_size=2001", "recipe.batch_size=2001: must be at most the 2000"),
    Row(f"{SMALL} trainer.threads=4096", "trainer.threads=4096: this process may use"),
    Row(f"{RUN} data=synthetic profile=smoke trainer.device=cuda",
        "trainer.device=cuda: no CUDA device is visible", env={"CUDA_VISIBLE_DEVICES": ""}),
    Row(f"{RUN} data.source=folder data.root={{here}}/none", "no CIFAR-10 at {here}/none", DATA),
    Row(f"{RUN} data.source=folder data.root={{here}}/file", "no CIFAR-10 at {here}/file", DATA,
        files=MINE),
    Row(f"{SMALL} runs_dir={{here}}/file/runs", "runs_dir: no run folder", files=MINE),
    Row(f"{SMALL} runs_dir=/proc/runs", "runs_dir: no run folder /proc/runs"),
    Row(SMALL, "torchrun starts resnet_repro.worker", env=TORCHRUN),
    Row(f"-m {SMALL}", "torchrun starts resnet_repro.worker", env=TORCHRUN),
    Row("run={here}/nope", "run={here}/nope", module="evaluate"),
    Row("weights={here}/nope.pt format=akamaster", "weights={here}/nope.pt", module="evaluate"),
    Row("run={here}/nope out={here}/x.pt", "run={here}/nope", module="export"),
    Row("run={here}/nope", "{here}/nope/config.yaml: cannot be read", module="responses"),
]  # fmt: skip


def trials(shop: Workshop) -> Iterator[Trial]:
    """One trial for each row; ``shop.count`` limits them."""
    listed = [(Row("", message), [RUN, word]) for word, message in REFUSED]
    listed += [(row, row.args.split()) for row in ROWS]
    for row, args in listed[: shop.count or len(listed)]:
        more = "".join(f"{key}= " for key in row.env)
        yield Trial(f"{more}{row.module} {' '.join(args)}", partial(refused, row, args))
    yield Trial("a folder that holds another run", another_run)
    yield Trial("a worker that a launcher half placed", half_placed)


def refused(row: Row, args: list[str], folder: Path) -> Outcome:
    for name, text in row.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = sorted(folder.rglob("*"))
    args = [word.replace("{here}", str(folder)) for word in args]
    if row.module == "train" and not any(word.startswith("runs_dir") for word in args):
        args.append(f"runs_dir={folder}/runs")
    began = time.monotonic()
    done = command(*args, module=row.module, env=row.env, cwd=folder, timeout=LIMIT)
    seconds = round(time.monotonic() - began, 2)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    untouched = sorted(folder.rglob("*")) == before
    one = len(lines) == 1 and lines[0].startswith("error: ")
    named = row.message.replace("{here}", str(folder)) in "".join(lines)
    # Data that are missing are found out by a run that has begun: its status says so.
    fine = one and named and done.returncode == row.code and (untouched or row.code == DATA)
    return {
        "code": done.returncode,
        "answer_s": seconds,
        "ok": fine,
        "said": "\n".join(lines[-3:]).replace(str(folder), "{here}")[:400],
        "nothing_written": untouched,
    }


def another_run(folder: Path) -> Outcome:
    job = begun(folder)
    message = "holds another run (recipe.lr was 0.1, now 0.2)"
    return refused(Row("", message), [*job.words, "recipe.lr=0.2"], folder)


def half_placed(folder: Path) -> Outcome:
    """Start a worker with some of the variables that say which one it is."""
    message = "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE not set"
    row = Row("", message, module="worker", env={"RANK": "0"})
    return refused(row, [str(begun(folder).folder.path)], folder)


def begun(folder: Path) -> Job:
    job = small_job(folder / "runs", "name=mine")
    job.folder.write_config(job.config.as_mapping())
    return job
