"""One item from the command line: train and test what is missing, draw it, print its claims."""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import cache, partial

from resnet_repro import evaluate, items, paths
from resnet_repro.analysis.evaluations import evaluations_beside, not_used, score_of
from resnet_repro.analysis.judge import check
from resnet_repro.analysis.load import Logged, can_draw, grouped, profile_to_show
from resnet_repro.analysis.logged_run import Run, warn
from resnet_repro.analysis.protocol import by_net
from resnet_repro.analysis.stats import how_many
from resnet_repro.command import count
from resnet_repro.compose import compose_run, make_job
from resnet_repro.conf import ItemRuns, changed_from_experiment, load_item
from resnet_repro.config import PROFILES, Config
from resnet_repro.evaluation import DataOptions, EvaluateOptions, TrainerOptions
from resnet_repro.exits import exit_code, explained, notify
from resnet_repro.options import WHAT
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.signals import stop_on_signals
from resnet_repro.same_run import differences
from resnet_repro.training.jobs import report, run_all

FIRST_PROFILE = "quick"  # trained where nothing is logged and no profile is given


def main(name: str) -> None:
    """Run one item; nets that need a further protocol are tested first, where weights are here."""
    shown = items.ITEMS.get(name) or items.DRAWINGS[name]
    args = _arguments(shown)
    with explained():
        if name in items.DRAWINGS:
            print(*map(os.path.relpath, shown.draw(None, args.out)), sep="\n")
            return
        item = load_item(name)
        config = compose_run(f"experiment={item.experiments[0]}", *args.overrides)
        runs = select(config, item, args)
        if args.train and (args.profile or args.seeds or not runs):
            profile = args.profile or profile_to_show(runs) or FIRST_PROFILE
            train_missing(item, profile, args.seeds, args.overrides)
            runs = select(config, item, args)
        report_missing(item, runs, args.profile)
        if shown.protocol and args.train:
            count_missing(runs, shown.protocol, config, together=shown.together)
        for line in not_used(runs, evaluations_beside(runs)) if shown.protocol else ():
            notify(line)
        print(*map(os.path.relpath, shown.draw(runs, args.out)), sep="\n")
        if any(run.is_variant for run in runs):
            notify(f"{name}: drawn from variants, which test no claim of the paper")
            return
        for result in check(shown.claims, runs):
            print(result.line())


def select(config: Config, item: ItemRuns, args: argparse.Namespace) -> list[Run]:
    """Return the finished runs an item is drawn from, and say what is left out.

    They are the runs of its experiments as they stand in ``conf/`` or, where overrides make other
    runs, those that the same command line would train. ``config`` is that of its first experiment.
    """
    root = paths.runs(config.runs_dir)
    changed = config.name != config.experiment or changed_from_experiment(config.as_mapping())
    if changed or any(word.startswith("profile=") for word in args.overrides):
        logged = Logged(root)
        for line in logged.problems:
            warn(line)
        compose = cache(partial(compose_run, *args.overrides))
        runs = [run for run in logged.runs if run.is_finished and _is_requested(run, item, compose)]
        profile = args.profile or profile_to_show(runs)
        runs = [run for run in runs if run.profile == profile]
    else:
        logged = Logged(root, experiments=item.drawn)
        for line in logged.left_out:
            warn(line)
        runs = logged.of_item(item, args.profile)
    return [run for run in runs if args.seeds is None or run.seed < args.seeds]


def _is_requested(run: Run, item: ItemRuns, compose: Callable[[str, str], Config]) -> bool:
    """Whether a run is what the overrides make of one of the item's experiments."""
    if run.experiment not in item.drawn:
        return False
    config = compose(f"experiment={run.experiment}", f"profile={run.profile}")
    same = config.name == run.name and config.profile == run.profile
    return same and not differences(config.as_mapping(), run.config, (WHAT,))


def report_missing(item: ItemRuns, runs: Sequence[Run], profile: str | None) -> None:
    """Name the item's nets that no run stands for; exit where there is nothing to draw."""
    logged = {run.experiment for run in runs}
    missing = [name for name in item.experiments if name not in logged]
    profile = runs[0].profile if runs else profile or FIRST_PROFILE
    how = f"make {item.name} PROFILE={profile} trains what is missing"
    if missing:
        notify(f"no finished {profile} run of {', '.join(missing)}; {how}")
    if not can_draw(item.experiments, logged):
        notify(f"{item.name}: nothing to {'compare' if logged else 'draw'}")
        raise SystemExit(1)


def train_missing(
    item: ItemRuns, profile: str, seeds: int | None, overrides: Sequence[str]
) -> None:
    """Train the item's unfinished runs, by default one seed of each net; exit where one fails."""
    jobs = [
        make_job(f"experiment={experiment}", f"profile={profile}", f"seed={seed}", *overrides)
        for seed in range(seeds or 1)
        for experiment in item.experiments
    ]
    with stop_on_signals() as stop_asked:
        outcomes = run_all(jobs, stop_asked)
    report(outcomes)


def count_missing(
    runs: Sequence[Run], protocol: str, config: Config, *, together: bool = False
) -> None:
    """Test untested final nets under ``protocol``; name those that cannot be.

    ``runs`` are finished and of one profile; ``config`` says where the data are and on which device
    to count; ``together``: as an ensemble, on each data set, of the first seed of every net.
    """
    evaluations = evaluations_beside(runs)
    untested = [run for run in runs if together or score_of(run, protocol, evaluations) is None]
    available = [r for r in untested if RunFolder(r.path).checkpoint(r.max_iters).is_file()]
    if len(available) < len(untested):
        names = ", ".join(run.place for run in untested if run not in available)
        notify(f"not tested at {protocol}, since their final weights are not here: {names}")
    missing = [[run] for run in available]
    if together:
        tested = [e for e in evaluations if e.score.protocol.endswith(f", {protocol}")]
        by_data = grouped(available, lambda run: run.data).values()
        nets = [[seeds[0] for seeds in by_net(same).values()] for same in by_data]
        missing = [g for g in nets if len(g) > 1 and not any(found.is_of(g) for found in tested)]
    if missing:
        what = "an ensemble" if together else how_many(len(missing), "run")
        notify(f"counting errors at {protocol} of {what} first; TRAIN=0 only draws")
    for group in missing:
        _test(group, protocol, config)


def _test(group: Sequence[Run], protocol: str, config: Config) -> None:
    """Evaluate and write the result beside the runs; print an error that a user can act on."""
    data, trainer = config.data, config.trainer
    folder = group[0].path.parents[2].parent / "evaluations"
    options = EvaluateOptions(
        run=[str(run.path) for run in group],
        results_dir=str(folder),
        protocol=protocol,
        data=DataOptions(root=data.root, source=data.source, on_corrupt=data.on_corrupt),
        trainer=TrainerOptions(
            device=trainer.device, threads=trainer.threads, loader_workers=trainer.loader_workers
        ),
    )
    names = " + ".join(run.place for run in group)
    try:
        result = evaluate.count(options)
        written = evaluate.write(folder, result)
    except Exception as error:
        if exit_code(error) is None:
            raise
        notify(f"not tested at {protocol}: {names}: {error}")
        return
    errors = f"top-1 {result['top1_err']:.2f} %, top-5 {result['top5_err']:.2f} %"
    notify(f"{names} at {protocol}: {errors}; {os.path.relpath(written)}")


def _arguments(shown: items.Item) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=paths.expand, default=shown.out, help="folder to draw into")
    if shown.name in items.DRAWINGS:
        parser.description = f"Draw {shown.name}; it needs no runs."
        return parser.parse_args()
    parser.description = f"Train what {shown.name} lacks, then draw it."
    text = "default: paper from two logged nets on, else that with most"
    parser.add_argument("--profile", choices=PROFILES, help=text)
    text = "number of seeds, from 0 on; default: all logged"
    parser.add_argument("--seeds", type=count, help=text)
    parser.add_argument("--no-train", dest="train", action="store_false", help="only draw")
    text = "configuration, as for resnet_repro.train"
    parser.add_argument("overrides", nargs="*", help=text)
    return parser.parse_intermixed_args()
