"""``python -m resnet_repro.responses run=RUN_DIR``: layer responses of a run's newest checkpoint.

Writes ``responses.csv`` into the run folder (Fig. 7), as the end of a run does; for a run that is
not finished, or with another number of images. Needs the run's checkpoints.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from resnet_repro import paths
from resnet_repro.command import run_command
from resnet_repro.config import Config
from resnet_repro.options import ConfigError, at_least, option
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.lock import run_lock


@dataclass(frozen=True)
class ResponsesOptions:
    """Options of ``resnet_repro.responses``."""

    run: str = option("", "run folder with a checkpoint")
    images: int = option(2_000, "test images", at_least(1))
    threads: int = option(0, "CPU threads; 0: one for each core", at_least(0))


def measure(options: ResponsesOptions) -> None:
    """Write the responses of the newest checkpoint.

    ConfigError: the run has no checkpoint. CheckpointError: none can be trusted. RunFolderError: no
    run is there, or another process works on it.
    """
    if not options.run:
        raise ConfigError("run is not set; see --help")
    folder = RunFolder(paths.expand(options.run))
    run = Config.from_mapping(folder.config())
    probes = dataclasses.replace(run.probes, response_images=options.images)
    from resnet_repro.training.build import assemble, load_images
    from resnet_repro.training.checkpoint import contents, load_newest
    from resnet_repro.training.device import here, set_up
    from resnet_repro.training.probes import keep_responses
    from resnet_repro.training.refuse import refuse_other_checkpoint

    # Responses are those of one net, however and wherever it was trained.
    device = "cpu" if run.trainer.device == "cpu" else "auto"
    how: dict[str, Any] = {"device": device, "devices": 1, "threads": options.threads}
    trainer = dataclasses.replace(run.trainer, graph="auto", compile="auto", **how)
    trained = folder.meta().get("precision", trainer.precision)
    trainer = dataclasses.replace(trainer, precision=here(trained, trainer))
    config = dataclasses.replace(run, probes=probes, trainer=trainer)
    context, state = assemble(config, set_up(trainer), load_images(config))
    with run_lock(folder.path):
        saved = load_newest(folder.checkpoints)
        if saved is None:
            raise ConfigError(
                f"run={folder.path}: has no checkpoint; checkpoints are not committed"
            )
        as_trained = {key: saved[key] for key in ("precision", "world_size")}
        refuse_other_checkpoint(folder, saved, contents(context, state) | as_trained)
        state.load_state_dict(saved)
        keep_responses(folder, context, state)
    count = min(options.images, len(context.images.held_out["test"]))
    done = f"{count} test images, iteration {state.iteration}"
    print(f"{folder.path}/responses.csv: {done}")


def main() -> None:
    """Run the command line."""
    run_command(__doc__, ResponsesOptions, measure)


if __name__ == "__main__":
    main()
