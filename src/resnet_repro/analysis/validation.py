"""The validation error that the ImageNet claims compare: of one protocol for all their runs."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_repro.analysis.evaluations import SINGLE_VIEW, evaluations_beside, run_key, score_of
from resnet_repro.analysis.judge import TEST, Measure
from resnet_repro.analysis.load import Run


def validation_error(groups: Sequence[Sequence[Run]], protocol: str) -> Measure:
    """Top-1 error under ``protocol`` if all the runs were tested so, else in the single view."""
    runs = [run for group in groups for run in group]
    evaluations = evaluations_beside(runs)
    found = {run_key(run.path): score_of(run, protocol, evaluations) for run in runs}
    scores = {key: score for key, score in found.items() if score is not None}
    if len(scores) < len(runs):
        return Measure(f"validation error ({SINGLE_VIEW})", TEST.of, public=True)
    return Measure(
        f"validation error ({protocol})",
        lambda run: scores[run_key(run.path)].top1,
        public=True,
    )
