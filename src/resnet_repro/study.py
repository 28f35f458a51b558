"""``python -m resnet_repro.study``: the whole study, in the order of ``conf/study.yaml``.

``run`` does what is missing until a budget is used (``trainer.concurrent=4``: four runs at a time
on one device); ``list`` says what is done, begun and missing, and ``--time`` how long that takes.
``bundle`` packs code, data and composed configurations for a host that has only Python and torch;
there, ``run --bundle`` works from it, and ``pack`` brings the run folders home without checkpoints.
"""

import argparse
import io
import json
import math
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from socket import gethostname
from typing import Any

from resnet_repro import paths
from resnet_repro.config import Config, TrainerConfig
from resnet_repro.exits import PREEMPTED, explained, notify
from resnet_repro.options import ConfigError
from resnet_repro.progress import duration
from resnet_repro.runs.folder import find_runs
from resnet_repro.runs.provenance import REVISION, git_state, has_gpu_driver, versions
from resnet_repro.runs.signals import is_alive, stop_on_signals
from resnet_repro.training.jobs import estimate, name_failed, report, run_all
from resnet_repro.training.launch import Job, job_of

JOBS = "jobs.json"  # of a bundle
UNDONE = ("running", "begun", "missing")
KINDS = ("done", *UNDONE, "diverged", "failed")
SECONDS = {"s": 1, "m": 60, "h": 3600}
ENGINE = {"graph": "step", "compile": "blocks"}  # what of a logged engine these keys decide


def plan(
    device: str, item: str | None = None, overrides: Sequence[str] = (), runs_dir: str = paths.AUTO
) -> list[Job]:
    """Compose the runs of the study for ``device`` (``cpu``, ``cuda``), in the order of work.

    With ``item`` only those that this item of the paper is made of; ``overrides`` are for
    every run. ConfigError: the list names something that does not exist.
    """
    import yaml  # a bundle's host has none

    from resnet_repro.conf import load_item

    selected = load_item(item).experiments if item else None
    blocks = yaml.safe_load((paths.CONF / "study.yaml").read_text(encoding="utf-8"))
    return [
        _job(experiment, block["profile"], seed, runs_dir, overrides)
        for block in blocks
        if block["device"] == device
        for seed in block["seeds"]
        for experiment in block["experiments"]
        if selected is None or experiment in selected
    ]


def _job(experiment: str, profile: str, seed: int, runs_dir: str, overrides: Sequence[str]) -> Job:
    """Make one job; Hydra, slow to import and to compose, only where there are overrides."""
    from resnet_repro.conf import protocol

    identity = [f"experiment={experiment}", f"profile={profile}", f"seed={seed}"]
    identity += [f"runs_dir={runs_dir}"] if runs_dir != paths.AUTO else []
    own, paper = protocol(experiment, profile), protocol(experiment)
    if overrides or not own or not paper:
        from resnet_repro.compose import make_job

        return make_job(*identity, *overrides)
    return job_of(replace(own, seed=seed, runs_dir=runs_dir), identity, paper)


def state_of(job: Job) -> str:
    """Describe the state of a run of the study in a word or two."""
    if job.is_done():
        return "done"
    status = job.folder.status()
    state, reached = status.get("state"), status.get("iter")
    if state in ("diverged", "failed"):
        return f"{state}: {status.get('reason', '')}"
    place = f"{reached} of {job.config.recipe.max_iters}"
    if state == "running" and status.get("host") == gethostname() and is_alive(status["pid"]):
        return f"running, {place}"
    checkpoint = "" if job.folder.resumes_at else ", but without a checkpoint"
    return f"begun, {place}{checkpoint}" if reached else "missing"


def show(jobs: Sequence[Job], *, timed: bool = False) -> None:
    """Print the state of each run, the counts and, if ``timed``, the time still needed."""
    states = [state_of(job) for job in jobs]
    for job, state in zip(jobs, states, strict=True):
        print(f"{job.config.label:44} {state}")
    kinds = [re.split("[,:]", state)[0] for state in states]
    counts = [f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds]
    print(f"{len(jobs)} runs: {', '.join(counts)}", flush=True)
    left = [job for job, kind in zip(jobs, kinds, strict=True) if kind in UNDONE]
    if left and timed:
        print(f"what is left takes about {duration(sum(estimate(left)))} on this machine")
    elif left:
        print("--time measures how long the rest takes on this machine")


def run(jobs: Sequence[Job], budget: float | None) -> None:
    """Do what is missing until the budget is used; the next call resumes."""
    deadline = time.monotonic() + (budget or math.inf)
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, lambda: stop_asked() or time.monotonic() > deadline)
    if any(outcome.is_stopped for outcome in outcomes) and not stop_asked():
        name_failed(outcomes)
        notify("the budget is used. Rerun the same command to resume.")
        raise SystemExit(PREEMPTED)
    report(outcomes)


def one_engine(jobs: Sequence[Job]) -> list[Job]:
    """Require of each run the engine of the runs of its data set that were logged on a GPU.

    Compiled blocks round differently: a host without a compiler must refuse the other seeds.
    ConfigError: logged runs differ in their engine already, or a run asks for another.
    """
    logged: dict[str, dict[str, str]] = {}
    for job in jobs:
        meta, data = job.folder.meta(), job.config.data.name
        if meta.get("device") == "cuda" and "engine" in meta:
            parts = {key: meta["engine"][part] for key, part in ENGINE.items()}
            used = {key: "never" if part == "eager" else "always" for key, part in parts.items()}
            if logged.setdefault(data, used) != used:
                raise ConfigError(
                    f"the runs of {data} were trained with different engines: {logged[data]}, "
                    f"{job.config.label} with {used}; --mixed-engines allows it"
                )
    required = []
    for job in jobs:
        data, own = job.config.data.name, vars(job.config.trainer)
        for key, value in logged.get(data, {}).items():
            if own[key] not in ("auto", value):
                raise ConfigError(
                    f"trainer.{key}={own[key]}: the logged runs of {data} were trained with "
                    f"{logged[data]}; --mixed-engines allows it"
                )
        required.append(_with_trainer(job, logged.get(data, {})))
    return required


def checked(jobs: Sequence[Job], path: Path) -> list[Job]:
    """Return the runs with the settings that ``make gpu-check`` found this machine to need.

    Explicit values stay, except that ``concurrent`` is always limited.
    """
    import torch

    if not path.exists():
        return list(jobs)
    saved = json.loads(path.read_text(encoding="utf-8"))
    same_torch = saved["versions"]["torch"] == versions()["torch"]
    if not (same_torch and saved["device"].startswith(torch.cuda.get_device_name())):
        notify(f"{path} is of another machine or torch and is not used; make gpu-check")
        return list(jobs)
    settings = saved["settings"]
    if settings:
        listed = " ".join(f"trainer.{key}={value}" for key, value in settings.items())
        notify(f"by {path}: {listed}")
    defaults, adjusted = vars(TrainerConfig()), []
    for job in jobs:
        own = vars(job.config.trainer)
        needed = {k: v for k, v in settings.items() if k == "concurrent" or own[k] == defaults[k]}
        adjusted.append(_with_trainer(job, needed))
    return adjusted


def _with_trainer(job: Job, values: Mapping[str, Any]) -> Job:
    return replace(job, config=replace(job.config, trainer=replace(job.config.trainer, **values)))


def default_device(overrides: Sequence[str] = ()) -> str:
    """``cuda`` where a run would use it, else ``cpu``; torch is imported only where a driver is.

    ConfigError: a GPU is visible that torch cannot use.
    """
    if "trainer.device=cpu" in overrides or not has_gpu_driver():
        return "cpu"
    from resnet_repro.training.device import sees_cuda

    return "cuda" if sees_cuda(TrainerConfig()) else "cpu"


def seconds(text: str) -> float:
    """Read a budget such as ``90s``, ``25m``, ``2h``; ArgumentTypeError: it is not one."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: must be like 90s, 25m or 2h")
    return float(match[1]) * SECONDS[match[2]]


def write_bundle(jobs: Sequence[Job], out: Path) -> Path:
    """Write code, data prepared here and the composed configurations of ``jobs`` into one tar.

    Unpacked, ``PYTHONPATH=src RESNET_REPRO_DATA=data python -m resnet_repro.study run --bundle .``
    does the runs; neither Hydra nor a network is needed there.
    """
    listed = [asdict(job) for job in jobs]
    data_sets = {(job.config.data.name, paths.data(job.config.data.root)) for job in jobs}
    with paths.writing(f"--out={out}"), tarfile.open(out, "w") as tar:
        for folder in (Path("src", "resnet_repro"), Path("benchmarks")):
            for path in sorted((paths.REPOSITORY / folder).rglob("*.py")):
                tar.add(path, path.relative_to(paths.REPOSITORY))
        for name, root in sorted(data_sets):
            files = [p for p in root.glob("*.npz") if p.stem.replace("-", "_").startswith(name)]
            for path in sorted(files):
                tar.add(path, f"data/{path.name}")
            if not files and name != "synthetic":  # which is made there
                notify(f"{out}: without {name}, which was not prepared in {root} yet")
        # The other host has no git state.
        for name, content in {f"src/resnet_repro/{REVISION}": git_state(), JOBS: listed}.items():
            text = json.dumps(content, indent=1).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return out


def load_jobs(bundle: Path, runs_dir: Path) -> list[Job]:
    """Read the runs of an unpacked bundle; their folders go below ``runs_dir``.

    ConfigError: there is no bundle.
    """
    try:
        listed = json.loads((bundle / JOBS).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--bundle={bundle}: has no {JOBS} ({error.strerror})") from error
    jobs = []
    for job in listed:
        config = replace(Config.from_mapping(job["config"]), runs_dir=str(runs_dir))
        config = replace(config, data=replace(config.data, root=paths.AUTO))
        jobs.append(Job(config, tuple(job["words"]), job["deviations"]))
    return jobs


def pack_runs(runs_dir: Path, out: Path) -> Path:
    """Archive all run folders without checkpoints and locks; unpack it in the project's root.

    ConfigError: there are none, or the archive cannot be written.
    """
    runs = find_runs(runs_dir)
    if not runs:
        raise ConfigError(f"--runs-dir={runs_dir}: holds no runs to pack")
    with paths.writing(f"--out={out}"), tarfile.open(out, "w:gz") as tar:
        for run in runs:
            for path in sorted(run.path.iterdir()):
                if path.is_file() and not path.name.startswith("."):
                    tar.add(path, f"results/runs/{path.relative_to(runs_dir)}")
    return out


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The study of conf/study.yaml.")
    parser.add_argument("what", nargs="?", default="run", choices=("run", "list", "bundle", "pack"))
    parser.add_argument("--budget", type=seconds, help="stop after 90s, 25m, 2h")
    parser.add_argument("--item", help="only the runs of one figure or table")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: what torch sees")
    parser.add_argument(
        "--mixed-engines", action="store_true", help="allow runs with and without compiled blocks"
    )
    parser.add_argument("--runs-dir", default=paths.AUTO, help="where run folders are kept")
    parser.add_argument("--time", action="store_true", help="list: measure how long the rest takes")
    parser.add_argument("--bundle", type=paths.expand, help="unpacked bundle to run from")
    parser.add_argument(
        "--out", type=paths.expand, help="archive: study.tar of bundle, runs.tar.gz of pack"
    )
    parser.add_argument("overrides", nargs="*", help="configuration words for every run")
    return parser.parse_intermixed_args()  # words may follow options


def main() -> None:
    """Run the command line."""
    args = _arguments()
    with explained():
        options = {"--item": args.item, "--device": args.device}
        chosen = [*args.overrides, *(f"{key}={value}" for key, value in options.items() if value)]
        if chosen and (args.bundle or args.what == "pack"):
            raise ConfigError(f"{chosen[0]}: runs are chosen where the bundle is made, not here")
        if args.what == "pack":
            out = args.out or Path("runs.tar.gz")
            print(pack_runs(paths.runs(args.runs_dir), out))
            return
        if args.bundle:
            jobs = load_jobs(args.bundle, paths.runs(args.runs_dir))
        else:
            device = args.device or default_device(args.overrides)
            jobs = plan(device, args.item, args.overrides, args.runs_dir)
        if not jobs:
            raise ConfigError(f"item={args.item}: no run of the study belongs to it here")
        if args.what == "bundle":
            print(write_bundle(jobs, args.out or Path("study.tar")))
        elif args.what == "list":
            show(jobs, timed=args.time)
        else:
            if jobs[0].config.trainer.device != "cpu" and default_device() == "cuda":
                jobs = checked(jobs, paths.GPU_CHECK)
                jobs = jobs if args.mixed_engines else one_engine(jobs)
            run(jobs, args.budget)


if __name__ == "__main__":
    main()
