"""What bf16 changes in a run: ``python -m benchmarks.precision RUN FOLDER... [--iterations N]``.

Each folder holds one checkpoint of the run. From each, the same updates are done in
the run's precision and in fp32, channels last and NCHW, on the same batches; and, as the yardstick,
in the run's precision with two other seeds of order and augmentation. A difference between
precisions counts only where it is larger than that between seeds. ``precision_<device>.json`` is
written after every continuation; those it holds are skipped.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from benchmarks import BENCH
from benchmarks.record import Row, provenance, write
from resnet_repro.config import Config
from resnet_repro.exits import explained
from resnet_repro.paths import expand
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import CheckpointError, checkpoint
from resnet_repro.training.build import RunContext, assemble, load_images
from resnet_repro.training.device import set_up
from resnet_repro.training.records import Log, count_and_log
from resnet_repro.training.state import TrainState, current_lr, step

ITERATIONS = 500
CLEAN_IMAGES = 10_000  # training images, evenly spaced, counted without augmentation


class Continuation(NamedTuple):
    """One way to continue: precision, memory layout, and seed of order and augmentation."""

    precision: str
    layout: str
    seed: int

    def name(self) -> str:
        """Name the row of the table."""
        return f"{self.precision}, {self.layout}, seed {self.seed}"


def ways(seed: int, precision: str) -> list[Continuation]:
    """List the continuations of a run that was trained in ``precision``."""
    listed = [
        Continuation(precision, "channels last", seed),
        Continuation("fp32", "channels last", seed),
        Continuation("fp32", "NCHW", seed),
        Continuation(precision, "channels last", seed + 1001),
        Continuation(precision, "channels last", seed + 1002),
    ]
    return list(dict.fromkeys(listed))  # of an fp32 run the first two are one


def continued(config: Config, way: Continuation, saved: dict[str, Any], iterations: int) -> Row:
    """Do the updates; return mean loss and error over them, and the errors of the net after."""
    trainer = replace(config.trainer, precision=way.precision, log_every_iters=iterations)
    config = replace(config, seed=way.seed, trainer=trainer)
    context, state = assemble(config, set_up(trainer), load_images(config))
    window = state.window.sums.clone()
    # A copy: the optimizer continues with the very tensors of momentum that it is given.
    state.load_state_dict(copy.deepcopy(saved) | {"window": window})
    nchw = way.layout == "NCHW"
    if nchw:
        state.model.to(memory_format=torch.contiguous_format)
    for _ in range(iterations):
        images, labels = context.images.batch(state.iteration)
        images = images.contiguous() if nchw else images
        step(state, context.setup, images, labels, current_lr(state, config.recipe))
    means = state.window.means(state.iteration, iterations)
    return {
        "loss": round(means.loss, 4),
        "train_error": round(means.top1_err, 3),
        **errors_after(context, state),
    }


def errors_after(context: RunContext, state: TrainState) -> Row:
    """Count the net's errors in percent, on training images without augmentation and on test."""
    sets = {
        "clean_train_error": context.images.clean(CLEAN_IMAGES),
        "test_error": context.images.held_out["test"],
    }
    quiet = Log(state)
    return {
        name: round(count_and_log(context, state, quiet, name, images), 3)
        for name, images in sets.items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Do the continuations that the file lacks, and write it after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("run", type=expand, help="folder of the run")
    parser.add_argument("checkpoints", type=expand, nargs="+", help="folders with one of its each")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="updates from each")
    parser.add_argument("--out", type=expand, default=BENCH, help="folder of the file written")
    args = parser.parse_args(argv)
    with explained():
        folder = RunFolder(args.run)
        config, meta = Config.from_mapping(folder.config()), folder.meta()
        header = provenance("precision", set_up(config.trainer)) | {
            "run": f"{config.profile}/{config.name}/seed{config.seed}",
            "net": meta["net"]["label"],
        }
        path = args.out / f"precision_{header['device']}.json"
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        for directory in args.checkpoints:
            saved = checkpoint.load_newest(directory)
            if saved is None:
                raise CheckpointError(f"{directory}: has no checkpoint")
            for way in ways(config.seed, meta["precision"]):
                start = {"from": saved["iteration"], "iterations": args.iterations}
                start["continuation"] = way.name()
                if any(start.items() <= row.items() for row in rows):
                    continue
                rows.append(start | continued(config, way, saved, args.iterations))
                print(rows[-1], file=sys.stderr, flush=True)
                write(args.out, header | {"rows": rows})
    print(path)


if __name__ == "__main__":
    main()
