"""Runs of ours on full-size pictures, counted again: as they were logged, and further."""

import pytest

from pictures import WORDS, write_folder
from ranks import do
from resnet_repro import evaluate
from resnet_repro.analysis.evaluations import load_evaluations, score_of
from resnet_repro.analysis.load import Logged
from resnet_repro.compose import make_job
from resnet_repro.data import MODIFIED
from test_evaluation_commands import ask, assert_is_as_recorded, counted, done, last

SMALL = ("experiment=imagenet_resnet18_A", *WORDS, "evaluation.clean_train_images=0")


@pytest.fixture(scope="module")
def runs(photographs, tmp_path_factory):
    place = tmp_path_factory.mktemp("results") / "runs"
    args = (*SMALL, "name=small", f"data.root={photographs}", f"runs_dir={place}")
    jobs = [make_job(*args, f"seed={seed}") for seed in (0, 1)]
    assert [do(job) for job in jobs] == ["finished", "finished"]
    return [job.folder for job in jobs]


def args(photographs, *runs):
    paths = "run=" + ",".join(str(run.path) for run in runs)
    return paths, f"data.root={photographs}", "trainer.loader_workers=0"


@pytest.mark.parametrize(("split", "kind"), [("test", "test"), ("train", "train_clean")])
def test_the_single_view_counts_as_it_was_logged(runs, photographs, tmp_path, split, kind):
    found = counted(tmp_path, *args(photographs, runs[0]), f"split={split}")
    assert_is_as_recorded(found, last(runs[0], kind))
    (model,) = found["models"]
    assert (model["run"], model["iter"]) == ("smoke/small/seed0", 4)
    assert model["normalisation"] == "pixel mean of the training pictures"
    trained_on = runs[0].meta()["data"]["digests"]
    assert trained_on.pop(MODIFIED)  # of no meaning for a count
    assert found["data"] == {"name": "folder", "digests": trained_on}


def test_ten_crops_and_an_ensemble_are_joined_with_their_runs(runs, photographs):
    out = runs[0].path.parents[3] / "evaluations"
    done(evaluate, *args(photographs, runs[0]), "protocol=10-crop", f"results_dir={out}")
    done(evaluate, *args(photographs, *runs), f"results_dir={out}")
    loaded = Logged(runs[0].path.parents[2]).runs
    evaluations = load_evaluations(out)
    alone = score_of(loaded[0], "10-crop", evaluations)
    assert (alone.images, alone.left_out) == (6, 0)
    assert score_of(loaded[1], "10-crop", evaluations) is None
    (both,) = [found for found in evaluations if found.is_of(loaded)]
    assert both.score.protocol == "ensemble of 2, 1-crop"


def test_precise_statistics_are_those_of_training_pictures(runs, photographs, tmp_path):
    found = counted(tmp_path, *args(photographs, runs[0]), "bn=precise")
    assert (found["bn"], found["models"][0]["bn_images"]) == ("precise", 10)  # two batches of 5
    assert found["loss"] != pytest.approx(last(runs[0], "test")["loss"], rel=1e-3)


def test_the_mean_of_other_pictures_is_refused(runs, photographs, tmp_path):
    write_folder(tmp_path / "other", size=(80, 70), train=5)
    out = f"results_dir={tmp_path / 'results'}"
    code, _, err = ask(evaluate, *args(tmp_path / "other", runs[0]), out)
    assert code == 2
    message = "smoke/small/seed0: was trained with other train pictures"
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "results").exists()
