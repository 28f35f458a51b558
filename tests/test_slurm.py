"""The SLURM batch script, with a scheduler made of three small scripts on PATH."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ranks import fingerprint, small_job, workers
from reliability.runs import at_work
from resnet_repro.data.synthetic import SIZES
from resnet_repro.paths import REPOSITORY as REPO
from resnet_repro.runs.folder import RunFolder

BATCH = REPO / "docs" / "slurm" / "train.sbatch"

FAKES = {
    # `sbatch script words`: what the controller does, on this machine.
    "sbatch": 'SLURM_JOB_ID=${SLURM_JOB_ID:-4242} exec bash "$@"',
    "srun": 'while [[ $1 == -* ]]; do shift; done; echo "$@" >> "$SEEN/srun"; "$@"',
    "squeue": 'echo "${JOB:-RUNNING}"',
    "scontrol": 'echo "$@" >> "$SEEN/scontrol"; [ "$1" = show ] && echo localhost; true',
}
# Stands for both the command and the launcher where only the script's own decisions are tested.
PYTHON = """
echo "$@" >> "$SEEN/python"
case $2 in
  resnet_repro.train) [ -z "$REFUSED" ] || exit "$REFUSED"; echo "$FOLDER" ;;
  torch.distributed.run) printf '{\\n  "state": "%s",\\n  "iter": 3\\n}' "$STATE" \
    > "$FOLDER/status.json"; exit 1 ;;
esac
"""


def cluster(tmp_path: Path, **more: str) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "seen").mkdir()
    for name, text in (FAKES | {"fakepython": PYTHON}).items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SEEN": f"{tmp_path}/seen",
        "PYTHON": "fakepython",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": "4",
        "FOLDER": "",
        "REFUSED": "",
        **more,
    }


def seen(tmp_path: Path, name: str) -> list[str]:
    path = tmp_path / "seen" / name
    return path.read_text().splitlines() if path.exists() else []


def submit(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sbatch", str(BATCH), *args], env=env, cwd=REPO, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("state", "code", "requeued"),
    [("finished", 0, 0), ("preempted", 0, 1), ("diverged", 5, 0), ("failed", 1, 0)],
)
def test_the_launcher_gets_all_machines_and_what_is_left_decides(tmp_path, state, code, requeued):
    """The launcher's exit code is 1 each time."""
    env = cluster(tmp_path, STATE=state, FOLDER=str(tmp_path))
    done = submit(env, "experiment=cifar10_plain20", "seed=3")
    assert done.returncode == code, done.stderr
    first, second = seen(tmp_path, "python")
    assert first.startswith("-m resnet_repro.train experiment=cifar10_plain20 seed=3 ")
    assert first.endswith("trainer.launcher=external trainer.devices=8")
    assert "--nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d --rdzv-id=4242" in second
    assert second.endswith(f"--rdzv-endpoint=localhost:29500 -m resnet_repro.worker {tmp_path}")
    assert submit(env | {"JOB": "CANCELLED"}).returncode == code
    calls = [call for call in seen(tmp_path, "scontrol") if call.startswith("requeue")]
    assert calls == ["requeue 4242"] * requeued


@pytest.mark.parametrize(("refused", "code"), [("2", 2), ("", 0)])
def test_nothing_is_started_for_a_refused_or_a_finished_run(tmp_path, refused, code):
    done = submit(cluster(tmp_path, REFUSED=refused), "experiment=cifar10_plain20")
    assert done.returncode == code
    assert seen(tmp_path, "srun") == seen(tmp_path, "scontrol") == []


WORDS = ("trainer.devices=2", "recipe.max_iters=70", "recipe.milestones=[]",
         "evaluation.every_iters=70", "probes.response_images=20",
         "trainer.checkpoint_every_iters=30")  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
def test_warned_it_saves_is_requeued_once_and_resumes_to_the_same_bits(tmp_path):
    """USR1 comes to every process of the step, as SLURM sends it, and through the launcher too."""
    whole, job = small_job(tmp_path / "whole", *WORDS), small_job(tmp_path / "runs", *WORDS)
    env = cluster(
        tmp_path, PYTHON=sys.executable, SLURM_JOB_NUM_NODES="1", SLURM_GPUS_ON_NODE="2",
        PORT="0", PYTHONPATH=str(REPO / "src"), SLURM_JOB_ID="77",
    )  # fmt: skip
    warned = subprocess.Popen(["sbatch", str(BATCH), *job.words], env=env, cwd=REPO)
    while job.folder.status().get("iter", 0) < 30:  # the first checkpoint
        assert warned.poll() is None
        time.sleep(0.05)
    for pid, what in at_work(job.folder.path).items():
        if what != "command":  # not the batch script and its srun
            os.kill(pid, signal.SIGUSR1)
    assert warned.wait() == 0
    assert job.folder.status()["state"] == "preempted"
    assert [call for call in seen(tmp_path, "scontrol") if "requeue" in call] == ["requeue 77"]
    assert at_work(job.folder.path) == {}
    done = submit(env, *job.words)  # what SLURM does with a requeued job
    assert done.returncode == 0, done.stderr
    assert job.folder.status()["state"] == "finished"
    assert len(seen(tmp_path, "srun")) == 2
    assert workers(whole, images=SIZES) == "finished"
    assert fingerprint(job.folder) == fingerprint(whole.folder)
    assert submit(env, *job.words).returncode == 0  # once more: nothing to do
    assert len(seen(tmp_path, "srun")) == 2


def test_submitit_does_the_runs_of_a_sweep(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    root = tmp_path / "runs"
    args = [word for word in small_job(root).words if not word.startswith("seed")]
    done = subprocess.run(
        [sys.executable, "-m", "resnet_repro.train", "-m", *args, "seed=0,1",
         "hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}/sweep"],
        cwd=REPO, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = [RunFolder(path) for path in sorted(root.glob("smoke/*/seed*"))]
    assert [run.path.name for run in runs] == ["seed0", "seed1"]
    assert all(run.is_finished for run in runs)
