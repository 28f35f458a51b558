"""The learning rate, update by update: planned drops, warm-ups, and drops at a plateau."""

import pytest

from ranks import UNSEEN, StopAt, do, fingerprint, finished, small_job
from resnet_repro.config import RecipeConfig
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training.schedule import Plateau, lr_at
from resnet_repro.training.state import TrainState, current_lr, watch_plateau

pytestmark = pytest.mark.usefixtures("few_images")
PLATEAU = (
    "recipe.schedule=plateau", "recipe.patience=2", "recipe.max_iters=14", "recipe.lr=0.4",
    "evaluation.every_iters=1", "trainer.log_every_iters=1", "trainer.checkpoint_every_iters=5",
    *UNSEEN,
)  # fmt: skip


def test_update_32001_is_the_first_at_a_tenth_and_a_fixed_warm_up_lasts_400():
    assert [lr_at(RecipeConfig(), i) for i in (0, 31_999, 32_000)] == [0.1, 0.1, 0.01]
    assert [lr_at(RecipeConfig(), i) for i in (47_999, 48_000, 63_999)] == [0.01, 0.001, 0.001]
    fixed = RecipeConfig(warmup="iters400")
    assert [lr_at(fixed, i) for i in (0, 399, 400)] == [0.01, 0.01, 0.1]


def test_trap_01_02_03_warm_up_ends_and_drops_start_from_the_full_rate():
    """Others stay at 0.01 until epoch 100, drop from 0.01, or never end the warm-up."""
    recipe = RecipeConfig(warmup="error80")
    assert lr_at(recipe, 10_000) == 0.01
    assert [lr_at(recipe, i, 412) for i in (411, 412, 32_000)] == [0.01, 0.1, 0.01]


def drops(errors: list[float], patience: int, max_drops: int = 9) -> list[int]:
    plateau = Plateau()
    found = [
        number
        for number, error in enumerate(errors, start=1)
        if plateau.drops_after(error, number, patience=patience, max_drops=max_drops)
    ]
    assert found == plateau.drops
    return found


def test_the_rate_drops_after_so_many_evaluations_without_improvement():
    assert drops([50, 40, 30, 20], 1) == []
    assert drops([50, 40, 40, 30, 31], 1) == [3, 5]  # as low as before is no improvement
    assert drops([50, 51, 49, 52, 53, 48], 2) == [5]
    assert drops([50, 51, 52, 53, 54, 55], 2) == [3, 5]  # counted from 0 after a drop
    assert drops([50, 40, 45, 44, 43, 42], 2) == [4, 6]  # the best of all counts, not the last
    assert drops([50] * 20, 2, max_drops=3) == [3, 5, 7]


@pytest.mark.parametrize("warmup", ["error80", "iters400"])
def test_trap_01_02_a_warm_up_is_no_plateau_and_drops_start_from_the_full_rate(warmup):
    """Others stay at the rate of the warm-up, or drop from it."""
    recipe = RecipeConfig(schedule="plateau", patience=1, warmup=warmup)
    state = TrainState.__new__(TrainState)
    state.warmup_exit, state.plateau, state.iteration = None, Plateau(), 0
    for state.iteration in (100, 200, 400):
        assert not watch_plateau(state, recipe, 90.0)
    assert state.plateau == Plateau()
    assert current_lr(state, recipe, 399) == 0.01
    state.warmup_exit = 400
    for state.iteration, error, dropped in ((500, 80.0, False), (600, 80.0, True)):
        assert watch_plateau(state, recipe, error) is dropped
    assert [current_lr(state, recipe, i) for i in (400, 599, 600)] == [0.1, 0.1, 0.01]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    job = small_job(tmp_path_factory.mktemp("whole"), *PLATEAU)
    assert do(job) == "finished"
    return job.folder


def drops_of(folder: RunFolder) -> dict[int, float]:
    """Iterations of the drops that a run logged, and the rates it went on with."""
    return {r["iter"]: r["value"] for r in folder.metrics() if r.get("event") == "lr_drop"}


def test_a_run_drops_by_what_it_logs_and_logs_each_drop(whole):
    records = whole.metrics()
    errors = [r["top1_err"] for r in records if r["kind"] == "test"]  # at each iteration
    expected = drops(errors[:-1], patience=2, max_drops=2)  # after the last no update is left
    assert expected, "the errors fell all the way: no plateau to see"
    assert drops_of(whole) == {
        i: pytest.approx(0.4 * 0.1**n) for n, i in enumerate(expected, start=1)
    }
    rates = {r["iter"]: r["lr"] for r in records if r["kind"] == "train"}
    for iteration, rate in rates.items():  # the update after the evaluation is the first below
        n = sum(iteration > drop for drop in expected)
        assert rate == pytest.approx(0.4 * 0.1**n)
    assert whole.meta()["deviations"]["recipe.schedule"] == ["milestones", "plateau"]


@pytest.mark.parametrize("after", ["drop", "waiting"])
def test_a_stopped_run_drops_where_one_that_was_not_stopped_does(whole, tmp_path, after):
    first, job = min(drops_of(whole)), small_job(tmp_path, *PLATEAU)
    assert do(job, StopAt(first if after == "drop" else first - 1)) == "preempted"
    assert finished(job) == fingerprint(whole)
