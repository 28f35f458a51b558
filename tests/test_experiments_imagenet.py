"""Every ImageNet and Tiny ImageNet experiment trains, on pictures made here, as in earnest."""

import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import pictures
import tiny_files
from fabricate_imagenet import imagenet_run
from ranks import do
from resnet_repro.analysis import paper
from resnet_repro.analysis.cost import SCHEDULES, paper_workloads
from resnet_repro.compose import compose_run, make_job
from resnet_repro.conf import load_item, names
from resnet_repro.data import DataError, colours, folder, tiny_imagenet
from resnet_repro.data.folder import TRAIN_PICTURES, load_pictures
from resnet_repro.models.build import build_meta
from resnet_repro.models.count import count_params
from resnet_repro.models.shortcuts import (
    IdentityShortcut,
    NoShortcut,
    ProjectionShortcut,
    ZeroPadShortcut,
)
from resnet_repro.options import ConfigError
from resnet_repro.paths import CONF
from resnet_repro.training import estimate
from small_crops import shrink

REPO = Path(__file__).resolve().parents[1]
IMAGENET = [n for n in names("experiment") if n.startswith("imagenet_") and not n.endswith("dev")]
TINY = [name for name in names("experiment") if name.startswith("tiny_")]
# One of each kind: no shortcut, A, B and C, basic block and bottleneck. The others are slow, and
# test_trap_15 builds them all.
QUICK = ("imagenet_plain18", "imagenet_resnet34_C", "tiny_resnet18_A", "tiny_resnet34_B",
         "tiny_resnet50")  # fmt: skip
FEW = (
    "profile=smoke", "recipe.batch_size=3", "recipe.max_iters=2", "recipe.milestones=[1]",
    "evaluation.every_iters=2", "evaluation.clean_train_images=1", "probes.response_images=1",
    "trainer.log_every_iters=1", "trainer.checkpoint_every_iters=2", "trainer.threads=1",
    "trainer.devices=1",
)  # fmt: skip
TINY_SHAPE = tiny_files.SHAPE._replace(side=64)


def some_slow(experiments: Sequence[str]) -> list[object]:
    slow = pytest.mark.slow
    return [n if n in QUICK else pytest.param(n, marks=slow) for n in experiments]


@pytest.fixture(scope="module")
def ilsvrc(tmp_path_factory):
    root = tmp_path_factory.mktemp("ilsvrc")
    pictures.write_folder(root, train=2, val=1, size=(80, 70))
    return root


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    tiny_files.write_zip(root, tiny_files.fake_files(64))
    return root


@pytest.fixture
def three_classes(monkeypatch):
    """Both data sets have three classes."""
    monkeypatch.setattr(folder, "CLASSES", 3)
    monkeypatch.setattr(tiny_imagenet, "SHAPE", TINY_SHAPE)


@pytest.mark.usefixtures("three_classes")
@pytest.mark.parametrize("experiment", some_slow(IMAGENET))
def test_every_imagenet_experiment_trains(experiment, ilsvrc, tmp_path, monkeypatch):
    shrink(monkeypatch)
    words = (f"data.root={ilsvrc}", f"runs_dir={tmp_path}", "trainer.loader_workers=0")
    job = make_job(f"experiment={experiment}", *FEW, *words)
    assert do(job) == "finished"
    records, meta = job.folder.metrics(), job.folder.meta()
    assert [(r["kind"], r["num_samples"]) for r in records] == [
        ("train", 3), ("train", 3), ("test", 3), ("train_clean", 1),
    ]  # fmt: skip
    assert meta["data"]["name"] == "imagenet"
    net = compose_run(f"experiment={experiment}").model
    assert meta["net"]["label"].split()[0].rpartition("-")[2] == str(net.depth)
    assert len(job.folder.table("responses")) == len(job.folder.table("signal")) > 0


@pytest.mark.usefixtures("three_classes")
@pytest.mark.parametrize("experiment", some_slow(TINY))
def test_every_tiny_imagenet_experiment_trains(experiment, tiny, tmp_path):
    job = make_job(f"experiment={experiment}", *FEW, f"data.root={tiny}", f"runs_dir={tmp_path}")
    assert do(job) == "finished"
    records = job.folder.metrics()
    assert [(r["kind"], r["num_samples"]) for r in records] == [
        ("train", 3), ("train", 3), ("test", 6), ("train_clean", 1),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("three_classes")
def test_figure_four_from_tiny_imagenets_files(tiny, tmp_path, monkeypatch, capsys):
    """``make fig4 PROFILE=smoke`` from the zip to the figure; then again, only drawing."""
    words = ["experiments/fig4.py", "--profile", "smoke", "--out", f"{tmp_path}/figures"]
    words += [f"data.root={tiny}", f"runs_dir={tmp_path}/runs", "trainer.threads=1"]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(REPO / "experiments" / "fig4.py"), run_name="__main__")
    said = capsys.readouterr()
    assert "4 of 4 runs to train: about" in said.err
    assert {path.name for path in (tmp_path / "figures").iterdir()} >= {"fig4.png", "fig4.svg"}
    assert "C7 " in said.out
    drawn = (tmp_path / "figures" / "fig4.svg").read_text(encoding="utf-8")
    assert "Tiny ImageNet" in drawn
    folders = sorted(path.parent.name for path in tmp_path.glob("runs/smoke/*/seed0"))
    assert folders == ["tiny_plain18", "tiny_plain34", "tiny_resnet18_A", "tiny_resnet34_A"]
    monkeypatch.setattr(sys, "argv", [*words, "--no-train"])
    runpy.run_path(str(REPO / "experiments" / "fig4.py"), run_name="__main__")
    assert "to train" not in capsys.readouterr().err


def test_runs_on_imagenet_are_drawn_beside_those_on_tiny_imagenet(tmp_path, monkeypatch, capsys):
    for label in ("plain-18", "ResNet-18 A"):
        for data in ("imagenet", "tiny_imagenet"):
            imagenet_run(tmp_path / "runs", label, data=data)
    words = ["experiments/fig4.py", "--no-train", "--out", f"{tmp_path}/figures"]
    monkeypatch.setattr(sys, "argv", [*words, f"runs_dir={tmp_path}/runs"])
    runpy.run_path(str(REPO / "experiments" / "fig4.py"), run_name="__main__")
    drawn = (tmp_path / "figures" / "fig4.svg").read_text(encoding="utf-8")
    assert "ImageNet, paper profile" in drawn
    assert "Tiny ImageNet, 64x64, 200 classes" in drawn
    told = capsys.readouterr().err
    assert (
        "no finished paper run of tiny_plain34, tiny_resnet34_A;" in told
    )  # what make fig4 would train
    assert set(load_item("fig4").drawn) - set(load_item("fig4").experiments) == {
        "imagenet_plain18", "imagenet_plain34", "imagenet_resnet18_A", "imagenet_resnet34_A",
    }  # fmt: skip
    assert load_item("fig6").drawn == load_item("fig6").experiments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "cifar10_resnet20 data=imagenet",
            "model.family=cifar: data.name=imagenet needs the imagenet family",
        ),
        (
            "cifar10_resnet20 data=folder profile=quick",
            "model.family=cifar: data.name=folder needs the imagenet family",
        ),
        (
            "imagenet_plain18 data.train_split=45k",
            "data.train_split=45k: only for data.name=cifar10, which is imagenet",
        ),
        (
            "imagenet_plain18 data.pad=zero",
            "data.pad=zero: crops of data.name=imagenet lie within the picture; there is no border",
        ),
        (
            "imagenet_plain18 data.on_corrupt=ignore",
            "data.on_corrupt=ignore: must be one of stop, skip",
        ),
        (
            "imagenet_plain18 trainer.loader_workers=-2",
            "trainer.loader_workers=-2: must be an integer >= -1",
        ),
        (
            "imagenet_plain18 trainer.devices=257",
            "trainer.devices=257: must be at most recipe.batch_size=256; each device takes a share "
            "of the mini-batch",
        ),
    ],
)
def test_what_cannot_go_together_is_refused_in_one_line(words, message):
    with pytest.raises(ConfigError) as caught:
        compose_run(*f"experiment={words}".split())
    assert str(caught.value) == message


def test_any_folder_goes_with_any_net_of_the_family():
    for profile in ("paper", "short", "quick", "smoke"):
        words = ("experiment=imagenet_resnet50", "data=folder", f"profile={profile}")
        recipe = compose_run(*words).recipe
        share = [milestone / recipe.max_iters for milestone in recipe.milestones]
        assert share == pytest.approx([0.25, 0.5, 0.75], abs=1e-3)


def test_experiments_are_those_whose_cost_is_told():
    works = {work.name: work for work in paper_workloads() if work.loads}
    assert set(works) <= set(IMAGENET)
    others = set(IMAGENET) - set(works) - {"imagenet_resnet18_B"}  # for which the paper has none
    assert {name.rpartition("_")[0] for name in others} <= set(works)  # the same nets otherwise
    for name, work in works.items():
        config = compose_run(f"experiment={name}")
        recipe = config.recipe
        assert (recipe.max_iters, recipe.batch_size) == (work.iterations, work.batch)
        assert (recipe.max_iters, recipe.batch_size) == SCHEDULES["imagenet"]
        epochs = [milestone * work.batch / TRAIN_PICTURES for milestone in recipe.milestones]
        assert epochs == pytest.approx([30, 60, 90], abs=1e-3)


def header(experiment: str) -> str:
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("experiment", [work.name for work in paper_workloads() if work.loads])
def test_headers_say_what_the_paper_prints(experiment):
    config, said = compose_run(f"experiment={experiment}").model, header(experiment)
    (work,) = [work for work in paper_workloads() if work.name == experiment]
    assert f"experiment={experiment} data.root=" in said
    assert f"{work.multiply_adds / 1e9:.2f} G multiply-adds" in said
    assert f"{work.total_multiply_adds:.1e} in all" in said
    if config.depth == 18 or config.shortcut == "none":
        table = paper.read("table2").set_index("layers")
        kind = "plain" if config.shortcut == "none" else "resnet_optionA"
        assert f"{table.loc[config.depth, f'{kind}_top1_err_pct_10crop_val']:.2f}" in said
    else:
        name = f"ResNet-{config.depth}" + (f" {config.shortcut}" if config.depth == 34 else "")
        row = paper.read("table3").set_index("model").loc[name]
        top1, top5 = row["top1_err_pct_10crop_val"], row["top5_err_pct_10crop_val"]
        assert f"top-1 / top-5 error {top1:.2f} / {top5:.2f} %" in said


@pytest.mark.parametrize("experiment", [*IMAGENET, *TINY])
def test_trap_15_plain_nets_have_no_shortcut_and_residual_nets_those_they_claim(experiment):
    model = compose_run(f"experiment={experiment}").model
    net = build_meta(model, 1000)
    kinds = [type(module) for module in net.modules()]
    blocks = {18: 8, 34: 16, 50: 16, 101: 33, 152: 50}[model.depth]
    if "plain" in experiment:
        assert kinds.count(NoShortcut) == blocks
        assert not {ZeroPadShortcut, ProjectionShortcut, IdentityShortcut} & set(kinds)
        return
    growing = 4 if model.depth >= 50 else 3
    made = {"A": (3, 0), "B": (0, growing), "C": (0, blocks)}[model.shortcut]
    found = kinds.count(ZeroPadShortcut), kinds.count(ProjectionShortcut)
    assert found == made
    assert kinds.count(IdentityShortcut) == blocks - sum(made)
    assert NoShortcut not in kinds
    counts = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
    if model.shortcut == "B":  # trap 11, as published
        assert count_params(net) == counts[model.depth]


def one_picture_a_class(root: Path, classes: int) -> None:
    file = pictures.encoded(pictures.photograph(8, 8))
    for part in ("train", "val"):
        for label in range(classes):
            folder = root / part / f"n{label:08d}"
            folder.mkdir(parents=True)
            (folder / "0.JPEG").write_bytes(file)


def test_imagenet_has_a_thousand_classes_and_missing_pictures_are_noted(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(colours, "SAMPLE", 5)
    one_picture_a_class(tmp_path / "imagenet", 1000)
    found = load_pictures("imagenet", tmp_path)  # its folder inside the folder of the data
    assert found.num_classes == 1000
    note = "1,000 training and 1,000 validation pictures, ILSVRC-2012 has 1,281,167 and 50,000"
    assert note in capsys.readouterr().err
    (extra := tmp_path / "imagenet" / "train" / "n99999999").mkdir()
    (extra / "0.JPEG").write_bytes(b"x")
    (val := tmp_path / "imagenet" / "val" / "n99999999").mkdir()
    (val / "0.JPEG").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1,001 classes, ILSVRC-2012 has 1,000; .* data=folder"):
        load_pictures("imagenet", tmp_path)
    with pytest.raises(DataError, match="no pictures at .*data.root="):
        load_pictures("imagenet", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("experiment", "sizes"),
    [("imagenet_plain18", (6, 3, 3)), ("imagenet_resnet152", (1_281_167, 50_000, 1_000))],
)
def test_the_time_of_a_run_is_estimated_with_and_without_its_pictures(
    experiment, sizes, ilsvrc, tmp_path, monkeypatch
):
    timed: list[Callable[[], None]] = []
    monkeypatch.setattr(estimate, "_median_seconds", lambda _, work: timed.append(work) or 1.0)
    root = ilsvrc if sizes[0] == 6 else tmp_path
    config = compose_run(f"experiment={experiment}", f"data.root={root}", "trainer.device=cpu")
    pace = estimate.measure(config)
    found = pace.sizes
    assert (found.train, found.test, found.classes, found.side) == (*sizes, 224)
    assert pace.per_update >= 256 / 4  # of the 4 images that took a second
    assert pace.seconds(config) > pace.seconds(config, 300_000) > 0
    if experiment == "imagenet_plain18":
        timed[0]()  # an update on made-up images
