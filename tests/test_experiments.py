"""Experiments train as in earnest: ImageNet's, all deviations, 1202 layers; a rerun is the same."""

import resource
import shlex

import pandas as pd
import pytest

import pictures
from benchmarks import cost
from fabricate import imagenet_run
from pictures import SMALL_CROP
from ranks import UNSEEN, do, fingerprint
from resnet_repro.analysis import counted, paper
from resnet_repro.analysis.protocol import SCHEDULES
from resnet_repro.compose import compose_run, make_job
from resnet_repro.conf import load_item, names, protocol
from resnet_repro.data import DataError, colours, folder, synthetic
from resnet_repro.data.folder import TRAIN_PICTURES, load_pictures
from resnet_repro.models.build import build_meta
from resnet_repro.paths import CONF
from resnet_repro.runs.folder import find_runs
from resnet_repro.train import main
from resnet_repro.training import estimate, jobs
from test_models_count import kinds_of_shortcuts
from tiny_files import FEW

pytestmark = pytest.mark.usefixtures("few_images")
IMAGENET = [n for n in names("experiment") if n.startswith("imagenet_") and not n.endswith("dev")]
TINY = [name for name in names("experiment") if name.startswith("tiny_")]
# Basic block and bottleneck, B and C: plain nets and A train in test_training_pictures and
# test_retest. The others are slow, and test_trap_15 builds them all.
QUICK = ("imagenet_resnet34_C", "tiny_resnet50")
PROBES = ("gradient_precision", "gradients", "responses", "signal")
PROBED = ("probes.signals=true", "probes.response_images=1", "trainer.log_every_iters=1")
CHANGED = ("data=synthetic", "model.depth=8", "evaluation.clean_train_images=10",
           "recipe.batch_size=64", "recipe.max_iters=2", "recipe.milestones=[1]",
           "evaluation.every_iters=2")  # fmt: skip
SMALL = (*CHANGED, "profile=smoke", "trainer.threads=1")


@pytest.mark.parametrize(
    "experiment",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*IMAGENET, *TINY)],
)
def test_every_experiment_on_pictures_trains(
    experiment, photographs, tiny_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(folder, "CLASSES", 3)  # of ImageNet
    root = photographs if experiment in IMAGENET else tiny_root
    args = (f"data.root={root}", f"runs_dir={tmp_path}", "trainer.loader_workers=0")
    job = make_job(f"experiment={experiment}", *FEW, *PROBED, *args)
    assert do(job) == "finished"
    meta, seen = job.folder.meta(), [(r["kind"], r["num_samples"]) for r in job.folder.metrics()]
    assert seen == [("train", 3), ("train", 3), ("test", 6), ("train_clean", 1)]
    assert meta["data"]["name"] == ("imagenet" if experiment in IMAGENET else "tiny_imagenet")
    assert meta["net"]["label"] == job.config.model.label
    assert all(job.folder.table(name) for name in PROBES)


def test_runs_on_imagenet_are_drawn_beside_those_on_tiny_imagenet(tmp_path, run_script, capsys):
    for label in ("plain-18", "ResNet-18 A"):
        for data in ("imagenet", "tiny_imagenet"):
            imagenet_run(tmp_path / "runs", label, data=data)
    run_script("fig4", "--no-train", "--out", tmp_path / "figures", f"runs_dir={tmp_path}/runs")
    drawn = (tmp_path / "figures" / "fig4.svg").read_text(encoding="utf-8")
    assert "ImageNet, paper profile" in drawn
    assert "Tiny ImageNet, 64x64, 200 classes" in drawn
    output = capsys.readouterr().err  # of what make fig4 would train
    assert "no finished paper run of tiny_plain34, tiny_resnet34_A;" in output
    assert set(load_item("fig4").drawn) - set(load_item("fig4").experiments) == {
        "imagenet_plain18", "imagenet_plain34", "imagenet_resnet18_A", "imagenet_resnet34_A",
    }  # fmt: skip
    assert load_item("fig6").drawn == load_item("fig6").experiments


def test_any_folder_goes_with_any_net_of_the_family():
    for profile in names("profile"):
        args = ("experiment=imagenet_resnet50", "data=folder", f"profile={profile}")
        recipe = compose_run(*args).recipe
        share = [milestone / recipe.max_iters for milestone in recipe.milestones]
        assert share == pytest.approx([0.25, 0.5, 0.75], abs=1e-3)


def test_experiments_are_those_whose_cost_is_listed():
    assert set(cost.IMAGENET) <= set(IMAGENET)
    others = set(IMAGENET) - {*cost.IMAGENET, "imagenet_resnet18_B"}  # for which the paper has none
    assert {name.rpartition("_")[0] for name in others} <= set(cost.IMAGENET)  # but for one setting
    for name in cost.IMAGENET:
        recipe = protocol(name).recipe
        assert (recipe.max_iters, recipe.batch_size) == SCHEDULES["imagenet"]
        epochs = [step * recipe.batch_size / TRAIN_PICTURES for step in recipe.milestones]
        assert epochs == pytest.approx([30, 60, 90], abs=1e-3)


@pytest.mark.parametrize("experiment", cost.IMAGENET)
def test_headers_say_what_the_paper_prints(experiment):
    config, (iterations, batch) = protocol(experiment).model, SCHEDULES["imagenet"]
    multiply_adds = counted.net(config.label).multiply_adds
    output = (CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    assert f"experiment={experiment} data.root=" in output
    assert f"{multiply_adds / 1e9:.2f} G multiply-adds" in output
    assert f"{3 * multiply_adds * iterations * batch:.1e} in all" in output  # forward, backward
    if config.depth == 18 or config.shortcut == "none":
        table = paper.read("table2").set_index("layers")
        kind = "plain" if config.shortcut == "none" else "resnet_optionA"
        assert f"{table.loc[config.depth, f'{kind}_top1_err_pct_10crop_val']:.2f}" in output
    else:
        name = f"ResNet-{config.depth}" + (f" {config.shortcut}" if config.depth == 34 else "")
        row = paper.read("table3").set_index("model").loc[name]
        top1, top5 = row["top1_err_pct_10crop_val"], row["top5_err_pct_10crop_val"]
        assert f"top-1 / top-5 error {top1:.2f} / {top5:.2f} %" in output


@pytest.mark.parametrize("experiment", [*IMAGENET, *TINY])
def test_trap_15_plain_nets_have_no_shortcut_and_residual_nets_those_they_claim(experiment):
    model = protocol(experiment).model
    blocks = {18: 8, 34: 16, 50: 16, 101: 33, 152: 50}[model.depth]
    growing = 4 if model.depth >= 50 else 3
    made = {
        "none": {"NoShortcut": blocks},
        "A": {"ZeroPadShortcut": 3, "IdentityShortcut": blocks - 3},
        "B": {"ProjectionShortcut": growing, "IdentityShortcut": blocks - growing},
        "C": {"ProjectionShortcut": blocks},
    }
    assert (model.shortcut == "none") == ("plain" in experiment)
    assert kinds_of_shortcuts(build_meta(model, 1000)) == made[model.shortcut]


def test_imagenet_has_a_thousand_classes_and_missing_pictures_are_noted(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(colours, "SAMPLE", 5)
    pictures.write_folder(tmp_path / "imagenet", classes=1000, train=1, val=1, size=(8, 8))
    found = load_pictures("imagenet", tmp_path)  # its folder inside the folder of the data
    assert found.num_classes == 1000
    note = "1,000 training and 1,000 validation pictures, ILSVRC-2012 has 1,281,167 and 50,000"
    assert note in capsys.readouterr().err
    with pytest.raises(DataError, match="no pictures at .*data.root="):
        load_pictures("imagenet", tmp_path / "nowhere")


def test_the_time_of_a_run_is_estimated_with_its_pictures(photographs, monkeypatch):
    """Without: test_the_estimate_times_the_steps_of_the_run."""
    timed = []
    monkeypatch.setattr(estimate, "PIXELS", 4 * SMALL_CROP**2)
    monkeypatch.setattr(estimate, "_median_seconds", lambda *args: timed.append(args[-1]) or 1.0)
    args = (f"data.root={photographs}", "trainer.device=cpu")
    config = compose_run("experiment=imagenet_plain18", *args)
    pace = estimate.measure(config)
    assert pace.sizes == (12, 6, 3, SMALL_CROP)
    assert pace.per_update >= 256 / 4  # of the 4 images that took a second
    assert pace.seconds(config) > pace.seconds(config, 300_000) > 0
    timed[0]()  # an update on made-up images


def test_the_command_in_a_run_gives_the_same_numbers_again(tmp_path, call):
    args = ["experiment=cifar10_resnet20", *SMALL, "seed=3", f"runs_dir={tmp_path}/a"]
    found = []
    for name in ("first", "again"):
        assert call(main, *args) == 0
        (run,) = find_runs(tmp_path / "a")
        found.append(fingerprint(run))
        command, args = (output := shlex.split(run.meta()["command"]))[:3], output[3:]
        assert command == ["python", "-m", "resnet_repro.train"]
        (tmp_path / "a").rename(tmp_path / name)  # or the next would skip it
    assert found[1] == found[0]
    assert len(found[0]["metrics"]) == 3
    assert all(found[0][table] for table in ("gradients", "responses", "signal"))


@pytest.mark.usefixtures("coarse_figures")
def test_every_deviation_but_the_split_of_cifar_trains_and_is_drawn(
    tmp_path, monkeypatch, call, run_script, capsys
):
    listed = load_item("deviations").experiments
    # Synthetic images have no 45k split.
    experiments = [name for name in listed if not name.endswith("_45k")]
    assert len(experiments) == len(listed) - 2
    runs, sweep = f"runs_dir={tmp_path}/runs", f"experiment={','.join(experiments)}"
    monkeypatch.setattr(jobs, "estimate", lambda missing: [1.0] * len(missing))
    assert call(main, "-m", sweep, *SMALL, *UNSEEN, runs) == 0
    args = ("--profile", "smoke", "--no-train", "--out", tmp_path / "figures")
    run_script("deviations", *args, runs, *CHANGED)
    missing = "no finished smoke run of cifar10_resnet56_45k, cifar10_plain56_45k"
    assert missing in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "tables" / "deviations.csv")
    assert len(table) == len(experiments)
    baselines = table[table["change"] == "as the paper"]
    assert baselines["net"].tolist() == ["ResNet-8", "plain-8"]
    assert table["test diff"].notna().sum() == len(experiments) - 2
    # A key in its own words means that nothing was said about it.
    assert not [change for change in table["change"] if "=" in change]
    assert (tmp_path / "figures" / "deviations.png").stat().st_size > 1_000


@pytest.mark.slow
def test_1202_layers_train_and_evaluate_within_8_gib(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "SIZES", (4, 2))
    job = make_job(
        "experiment=cifar10_resnet1202", "data=synthetic", "profile=smoke", "trainer.threads=1",
        "recipe.batch_size=2", "recipe.max_iters=1", "recipe.milestones=[]",
        "evaluation.clean_train_images=1", "probes.response_images=1", f"runs_dir={tmp_path}",
    )  # fmt: skip
    assert do(job) == "finished"
    net = {"label": "ResNet-1202", "params": 19_421_274, "multiply_adds": 2_829_238_912}
    assert job.folder.meta()["net"] == net
    records = {record["kind"]: record for record in job.folder.metrics()}
    assert records["train"]["lr"] == 0.01  # still in the warm-up
    assert records["test"]["num_samples"] == 2
    assert len(job.folder.table("responses")) == len(job.folder.table("gradients")) == 1201
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert peak < 8, f"{peak:.1f} GiB"
