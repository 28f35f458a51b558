"""What bf16 changes in a run: ``python -m benchmarks.precision RUN FOLDER... [--iterations N]``.

Each folder holds one checkpoint of the run. At each, gradients of the same mini-batches are
computed in the run's precision and in fp32. From each, the same updates are done in the run's
precision and in fp32, channels last and NCHW, on the same batches; and, as the yardstick, in the
run's precision with two other seeds of order and augmentation (``--iterations 0``: none). A
difference between precisions counts only where it is larger than that between seeds.
``precision_<experiment>_<device>.json`` is written after each; what it holds is skipped.
"""

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import BENCH
from benchmarks.record import Row, provenance, write
from resnet_repro.config import Config
from resnet_repro.exits import explained
from resnet_repro.options import ConfigError
from resnet_repro.paths import expand
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import CheckpointError, checkpoint
from resnet_repro.training.build import RunContext, assemble, load_images
from resnet_repro.training.device import set_up
from resnet_repro.training.records import Log, count_and_log
from resnet_repro.training.state import TrainState, current_lr, forward_backward, step

ITERATIONS = 500
BATCHES = 8  # whose gradients are compared
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
    own, exact = (Continuation(name, "channels last", seed) for name in (precision, "fp32"))
    others = [own._replace(seed=seed + more) for more in (1001, 1002)]
    # Of an fp32 run the first two are one.
    return list(dict.fromkeys([own, exact, exact._replace(layout="NCHW"), *others]))


def restored(config: Config, saved: dict[str, Any]) -> tuple[RunContext, TrainState]:
    """Build the run at a checkpoint, its window of records empty."""
    context, state = assemble(config, set_up(config.trainer), load_images(config))
    window = state.window.sums.clone()
    # A copy: the optimizer continues with the very tensors of momentum that it is given.
    state.load_state_dict(copy.deepcopy(saved) | {"window": window})
    return context, state


def gradients(config: Config, precision: str, saved: dict[str, Any]) -> Row:
    """Compare the gradients of the next mini-batches in a precision with those in fp32.

    ``rounding`` is the length of their difference, ``sampling`` that of the difference to the mean
    gradient of all batches; both over the length of the gradient in fp32, means over the batches.
    """
    context, state = restored(config, saved)
    found: dict[str, list[Tensor]] = {precision: [], "fp32": []}
    for iteration in range(state.iteration, state.iteration + BATCHES):
        images, labels = context.images.batch(iteration)
        for name, all_batches in found.items():
            setup = set_up(replace(config.trainer, precision=name))
            forward_backward(state, setup, images, labels)
            parts = [p.grad.flatten() for p in state.model.parameters() if p.grad is not None]
            all_batches.append(torch.cat(parts))
    rounded, exact = torch.stack(found[precision]), torch.stack(found["fp32"])

    def relative(differences: Tensor) -> float:
        return round(float((differences.norm(dim=1) / exact.norm(dim=1)).mean()), 4)

    sampling = relative(exact - exact.mean(dim=0))
    return {"batches": BATCHES, "rounding": relative(rounded - exact), "sampling": sampling}


def continued(config: Config, way: Continuation, saved: dict[str, Any], iterations: int) -> Row:
    """Do the updates; return mean loss and error over them, and the errors of the net after.

    These, in percent, are on training images without augmentation and on test images.
    """
    trainer = replace(config.trainer, precision=way.precision, log_every_iters=iterations)
    context, state = restored(replace(config, seed=way.seed, trainer=trainer), saved)
    nchw = way.layout == "NCHW"
    if nchw:
        state.model.to(memory_format=torch.contiguous_format)
    for _ in range(iterations):
        images, labels = context.images.batch(state.iteration)
        images = images.contiguous() if nchw else images
        step(state, context.setup, images, labels, current_lr(state, config.recipe))
    means = state.window.means(state.iteration, iterations)
    row = {"loss": round(means.loss, 4), "train_error": round(means.top1_err, 3)}
    clean, test = context.images.clean(CLEAN_IMAGES), context.images.held_out["test"]
    quiet = Log(state)
    for name, counted in (("clean_train_error", clean), ("test_error", test)):
        row[name] = round(count_and_log(context, state, quiet, name, counted), 3)
    return row


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the file lacks, and write it after each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("run", type=expand, help="folder of the run")
    parser.add_argument("checkpoints", type=expand, nargs="+", help="folders with one of its each")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="updates from each")
    parser.add_argument("--out", type=expand, default=BENCH, help="folder of the file written")
    args = parser.parse_args(argv)
    with explained():
        folder = RunFolder(args.run)
        config, meta = Config.from_mapping(folder.config()), folder.meta()
        part = f"precision_{config.experiment}"
        header = provenance(part, set_up(config.trainer)) | {
            "run": f"{config.profile}/{config.name}/seed{config.seed}",
            "net": meta["net"]["label"],
            "precision": meta["precision"],  # of the run; this machine may choose another
        }
        path = args.out / f"{part}_{header['device']}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        if content.get("run", header["run"]) != header["run"]:
            raise ConfigError(f"{path}: is of {content['run']}, not {header['run']}; change --out")
        rows, compared = content.get("rows", []), content.get("gradients", [])

        # The header is of the last measurement; days, revisions and machines may differ.
        source = {"made": header["made"], "revision": header["git"]["revision"]}
        source["on"] = header["hardware"]["label"]

        def keep(kept: list[Row], row: Row) -> None:
            kept.append(row | source)
            print(kept[-1], file=sys.stderr, flush=True)
            write(args.out, header | {"gradients": compared, "rows": rows})

        for directory in args.checkpoints:
            saved = checkpoint.load_newest(directory)
            if saved is None:
                raise CheckpointError(f"{directory}: has no checkpoint")
            at = {"from": saved["iteration"]}
            if not any(at.items() <= row.items() for row in compared):
                keep(compared, at | gradients(config, meta["precision"], saved))
            for way in ways(config.seed, meta["precision"]) if args.iterations else ():
                start = at | {"iterations": args.iterations, "continuation": way.name()}
                if not any(start.items() <= row.items() for row in rows):
                    keep(rows, start | continued(config, way, saved, args.iterations))
    print(path)


if __name__ == "__main__":
    main()
