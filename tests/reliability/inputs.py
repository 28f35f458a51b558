"""Words that cannot be meant: each refused in one line, nothing written, by the real command."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reliability.processes import environment
from reliability.record import Outcome
from reliability.subject import small_job
from reliability.workshop import Trial, Workshop
from resnet_repro.exits import DATA

LIMIT = 120.0  # seconds after which a command counts as not refused
RUN = "experiment=cifar10_plain20"


@dataclass(frozen=True)
class Row:
    """What is said (``{here}`` is the trial's folder) and how the refusal must begin."""

    words: tuple[str, ...]
    says: str
    code: int = 2
    module: str = "train"
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def row(words: str, says: str, **more: object) -> Row:
    """A row whose words are separated by blanks."""
    return Row(tuple(words.split()), says, **more)  # type: ignore[arg-type]


def option(word: str, says: str) -> Row:
    """One word too many for an experiment that is fine."""
    return Row((RUN, word), says)


NUMBER = "must be a finite number > 0"
OPTIONS = [
    option("lrr=0.3", "unknown option 'lrr'; did you mean 'recipe.lr'?"),
    option("recipe.lrr=0.3", "unknown option 'recipe.lrr'; did you mean 'recipe.lr'?"),
    option("model.depht=20", "unknown option 'model.depht'; did you mean 'model.depth'?"),
    option("+new=1", "unknown option 'new'; allowed: experiment"),
    option("++new=1", "unknown option 'new'; allowed: experiment"),
    option("~model.depth", "~model.depth: an option cannot be taken away"),
    option("recipe.lr=abc", f"recipe.lr=abc: {NUMBER}"),
    option("recipe.lr=", f"recipe.lr='': {NUMBER}"),
    option("recipe.lr=null", f"recipe.lr=null: {NUMBER}"),
    option("recipe.lr=true", f"recipe.lr=true: {NUMBER}"),
    option("recipe.lr=-0.1", f"recipe.lr=-0.1: {NUMBER}"),
    option("recipe.lr=0", f"recipe.lr=0: {NUMBER}"),
    option("recipe.lr=nan", f"recipe.lr=nan: {NUMBER}"),
    option("recipe.lr=inf", f"recipe.lr=inf: {NUMBER}"),
    option("recipe.lr=1e400", f"recipe.lr=inf: {NUMBER}"),
    option("seed=1.5", "seed=1.5: must be an integer in"),
    option("seed=true", "seed=true: must be an integer in"),
    option("seed=1e400", "seed=inf: must be an integer in"),
    option("seed=-1", "seed=-1: must be an integer in [0, 2^63)"),
    option(f"seed={2**64}", f"seed={2**64}: must be an integer in [0, 2^63)"),
    option("recipe.max_iters=0", "recipe.max_iters=0: must be an integer >= 1"),
    option("recipe.max_iters=-3", "recipe.max_iters=-3: must be an integer >= 1"),
    option("recipe.batch_size=0", "recipe.batch_size=0: must be an integer >= 1"),
    option("trainer.devices=129", "trainer.devices=129: must be at most recipe.batch_size=128"),
    option("recipe.nesterov=2", "recipe.nesterov=2: must be true or false"),
    option("model.depth=21", "model.depth=21: a CIFAR net has 6n+2 layers"),
    option("model.shortcut=D", "model.shortcut=D: must be one of none, A, B, C, gate"),
    option("data=imagenett", "data=imagenett: must be one of cifar10"),
    option("recipe.milestones=[150,100]", "recipe.milestones=[150, 100]: must be increasing"),
    option("recipe.milestones=[100,a]", "recipe.milestones=[100, 'a']: must be increasing"),
    option("recipe.max_iters=100", "recipe.milestones=[32000, 48000]: must all be below"),
    option("recipe.momentum=1.0", "recipe.momentum=1.0: must be a finite number in [0, 1)"),
    option("recipe.weight_decay=-1", "recipe.weight_decay=-1: must be a finite number >= 0"),
    option("recipe.warmup=cosin", "recipe.warmup=cosin: must be one of none, error80, iters400"),
    option("trainer.threads=-1", "trainer.threads=-1: must be an integer >= 0"),
    option("trainer.precision=fp16", "trainer.precision=fp16: must be one of auto, fp32"),
    option("profile=fast", "profile=fast: must be one of paper, quick, short, smoke"),
    option("name=../up", "name=../up: must be"),
    option("recipe.lr=0.1,0.2", "recipe.lr=0.1,0.2: several values for one run; add -m"),
    option("recipe.lr='0.1", "could not read"),
    option("seed=[1", "could not read"),
    option("recipe.lr=${nope}", "recipe.lr: cannot be resolved: Interpolation key 'nope'"),
    option("recipe.lr=${oc.env:NOPE}", "recipe.lr: cannot be resolved: KeyError raised"),
    option("logger.mode=onlin", "logger.mode=onlin: must be one of"),
    option("hydra/launcher=nope", "hydra/launcher=nope: must be one of basic"),
]
GLOBAL = "# @package _global_\n"
SMALL = f"{RUN} data=synthetic profile=smoke trainer.device=cpu"
WORDS = [
    row("", "experiment is not set; one of"),
    row("experiment=resnet51", "experiment=resnet51: must be one of"),
    row("experiment=tiny_plain18 data=cifar10 model.depth=50 model.shortcut=D", "model.shortcut=D"),
    row("experiment=cifar10_plain20 data=tiny_imagenet", "model.family=cifar: data.name=tiny"),
    row("-m item=fig9", "item=fig9: must be one of"),
    row("item=fig1", "item names several runs; add -m to sweep over them"),
    row(f"-m {RUN} seed=0,-1", "seed=-1: must be an integer in"),
    row("-m experiment=glob(cifar100_*)", "the sweep is empty"),
    row("--config-name nope", "Cannot find primary config 'nope'"),
    row(f"--config-dir {{here}}/nope {RUN}", "Additional config directory '{here}/nope' not found"),
    row("--config-dir {here} experiment=tab", "{here}/experiment/tab.yaml:3:1: not YAML (",
        files={"experiment/tab.yaml": f"{GLOBAL}model:\n\tdepth: 20\n"}),
    row("--config-dir {here} experiment=twice", "{here}/experiment/twice.yaml:2:20: not YAML (",
        files={"experiment/twice.yaml": f"{GLOBAL}model: {{depth: 20, depth: 32}}\n"}),
    row("--config-dir {here} experiment=open", "{here}/experiment/open.yaml:4:1: not YAML (",
        files={"experiment/open.yaml": f"{GLOBAL}recipe:\n  milestones: [1,2,\n"}),
    row("--config-dir {here} experiment=no", "recipe.nesterov=n: must be true or false",
        files={"experiment/no.yaml": f"{GLOBAL}recipe:\n  nesterov: 'n'\n"}),
    row("--config-dir {here} experiment=bare", "experiment=bare: its file must begin with",
        files={"experiment/bare.yaml": "recipe:\n  lr: 0.2\n"}),
    row(f"{SMALL} recipe.batch_size=2001", "recipe.batch_size=2001: must be at most the 2000"),
    row(f"{SMALL} trainer.threads=4096", "trainer.threads=4096: this process may use"),
    row(f"{SMALL} trainer.precision=tf32", "trainer.precision=tf32: needs a CUDA device"),
    row(f"{RUN} data=synthetic profile=smoke trainer.device=cuda",
        "trainer.device=cuda: no CUDA device is visible", env={"CUDA_VISIBLE_DEVICES": ""}),
    row(f"{RUN} data.source=folder data.root={{here}}/none", "no CIFAR-10 at {here}/none", code=3),
    row(f"{RUN} data.source=folder data.root={{here}}/file", "no CIFAR-10 at {here}/file", code=3,
        files={"file": "mine"}),
    row(f"{SMALL} runs_dir={{here}}/file/runs", "runs_dir: no run folder", files={"file": "mine"}),
    row(f"{SMALL} runs_dir=/proc/runs", "runs_dir: no run folder /proc/runs"),
    row(SMALL, "torchrun starts resnet_repro.worker", env={"TORCHELASTIC_RUN_ID": "1"}),
    row(f"-m {SMALL}", "torchrun starts resnet_repro.worker", env={"TORCHELASTIC_RUN_ID": "1"}),
    row("{here}", "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE not set", module="worker",
        env={"RANK": "0"}),
    row("run={here}/nope", "run={here}/nope", module="evaluate"),
    row("weights={here}/nope.pt format=akamaster", "weights={here}/nope.pt", module="evaluate"),
    row("run={here}/nope out={here}/x.pt", "run={here}/nope", module="export"),
    row("run={here}/nope", "{here}/nope/config.yaml: cannot be read", module="responses"),
]  # fmt: skip


def trials(shop: Workshop) -> Iterator[Trial]:
    """One trial for each row; ``shop.count`` limits them."""
    rows = [*OPTIONS, *WORDS]
    for number, each in enumerate(rows[: shop.count or len(rows)]):
        said = " ".join(each.words) or "nothing"
        more = "".join(f"{key}= " for key in each.env)
        yield Trial(f"{number}: {more}{each.module} {said}", partial(refused, each))
    yield Trial("a folder that holds another run", another_run)


def refused(each: Row, folder: Path) -> Outcome:
    """Say it; one line, the right exit code, nothing written."""
    for name, text in each.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = sorted(folder.rglob("*"))
    words = [word.replace("{here}", str(folder)) for word in each.words]
    asked = each.module == "train" and not any(word.startswith("runs_dir") for word in words)
    runs = [f"runs_dir={folder}/runs"] if asked else []
    found = said([f"resnet_repro.{each.module}", *words, *runs], folder, each.env)
    begins = each.says.replace("{here}", str(folder))
    line = found.pop("lines")
    untouched = sorted(folder.rglob("*")) == before
    one = len(line) == 1 and line[0].startswith("error: ") and begins in line[0]
    # Data that are missing are found out by a run that has begun: its status says so.
    fine = one and found["code"] == each.code and (untouched or each.code == DATA)
    return found | {
        "ok": fine,
        "said": "\n".join(line[-3:]).replace(str(folder), "{here}")[:400],
        "nothing_written": untouched,
    }


def said(words: list[str], folder: Path, env: dict[str, str]) -> Outcome:
    """Say a command and take down what it answers."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment(**env), capture_output=True,
        text=True, timeout=LIMIT,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not re.match(r"\s*$", line)]
    return {"code": done.returncode, "answer_s": round(time.monotonic() - began, 2), "lines": lines}


def another_run(folder: Path) -> Outcome:
    """Say a run whose folder holds one with another learning rate."""
    job = small_job(folder / "runs")
    job.folder.write_config(job.config.as_mapping())
    says = "holds another run (recipe.lr was 0.1, now 0.2)"
    return refused(Row((*job.words, "recipe.lr=0.2"), says), folder)
