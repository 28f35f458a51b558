"""The notebooks run top to bottom, call public functions alone, and are committed as they ran."""

import ast
import importlib.util
import json
import shutil
from dataclasses import replace

import pytest

import resnet_repro.analysis as ra
from fabricate import fabricate
from resnet_repro.analysis.notebook import names
from resnet_repro.paths import REPOSITORY as REPO

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
WITH_DATA = ("plain-20", "plain-56", "ResNet-20", "ResNet-56")
runs_notebooks = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("nbclient", "ipykernel")),
    reason="nbclient and ipykernel are not installed",
)
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


@each
def test_only_public_functions_are_called_in_short_cells(path):
    allowed = {"resnet_repro.analysis", "resnet_repro.api", "os", "textwrap", "matplotlib.figure"}
    for cell in cells(path):
        lines = [line for line in cell["source"] if not line.startswith("%")]
        assert len(lines) <= 12
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom):
                assert node.module in allowed
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "ra" or node.attr in ra.__all__, node.attr


@each
def test_it_is_committed_as_it_ran_and_its_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 500_000, "figures are kept small"
    counts = [cell["execution_count"] for cell in cells(path)]
    assert counts == [*range(1, len(counts) + 1)], "make notebooks"
    outputs = [output for cell in cells(path) for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for trace in (str(REPO), "/home/", "/root/", "/tmp/", "site-packages", "Traceback"):
        assert trace not in text, trace
    for cell in cells(path, "markdown"):
        for part in "".join(cell["source"]).split("](")[1:]:
            assert (path.parent / part.partition(")")[0]).exists()


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNET_REPRO_RUNS", str(tmp_path / "results" / "runs"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    shutil.copytree(REPO / "notebooks", tmp_path / "notebooks")
    for label in WITH_DATA:
        fabricate(tmp_path / "results" / "runs", label, profile="paper", probes=True)
    return tmp_path


@runs_notebooks
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem[0] == "3"), id=p.stem) for p in NOTEBOOKS],
)  # the third one trains
def test_it_runs_top_to_bottom(path, project):
    from notebooks.run import execute

    copy = project / "notebooks" / path.name
    few = r"batch_size=4\", \"recipe.max_iters=6\", \"recipe.milestones=[3]"
    copy.write_text(copy.read_text().replace("batch_size=32", few))
    notebook = execute(copy)
    before = [len(cell["outputs"]) > 0 for cell in cells(path)]
    after = [len(cell.outputs) > 0 for cell in notebook.cells if cell.cell_type == "code"]
    assert after == before
    trained = {run.parent.name for run in project.glob("results/runs/smoke/*/seed0")}
    assert trained == ({"notebook_whole", "notebook_half"} if path.stem[0] == "3" else set())


def test_runs_are_found_from_wherever_one_is(project, monkeypatch):
    monkeypatch.chdir(project / "notebooks")
    assert [run.label for run in ra.runs("paper")] == [*WITH_DATA]
    root, changed = project / "results" / "runs", "cifar10_resnet20_lr05"
    fabricate(root, "ResNet-20", profile="paper", name=changed, changes={"experiment": changed})
    assert changed in {run.experiment for run in ra.runs("paper")}
    assert [run.experiment for run in ra.runs("paper", [changed])] == [changed]
    assert ra.runs("paper", data="tiny_imagenet") == []
    assert len(ra.runs("paper", data="cifar10")) == len(WITH_DATA) + 1
    monkeypatch.chdir("/")
    assert len(ra.runs("paper")) == len(WITH_DATA) + 1
    monkeypatch.delenv("RESNET_REPRO_RUNS")
    assert all(run.path.is_relative_to(REPO) for run in ra.runs())
    assert ra.repository() == REPO


def test_every_public_name_is_there():
    assert len(NOTEBOOKS) == 3
    for name in ra.__all__:
        assert callable(getattr(ra, name)), name
    assert dir(ra) == ra.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = ra.nothing


def made(root, label="plain-20", profile="short", **more):
    return ra.load_run(fabricate(root, label, profile=profile, **more))


def test_a_pair_of_runs(tmp_path):
    runs = [made(tmp_path, test=20.0), made(tmp_path, "ResNet-20", test=15.0)]
    change = {"key": ["model.shortcut"], "plain-20": ["none"], "ResNet-20": ["A"]}
    assert ra.differences(*runs).to_dict("list") == change
    assert ra.pick(runs, "ResNet-20") is runs[1]
    with pytest.raises(KeyError, match="no ResNet-56 seed 0; there is plain-20 seed 0, ResNet-20"):
        ra.pick(runs, "ResNet-56")
    figure = ra.compare(*runs)
    (gap, _) = figure.axes[2].lines
    assert gap.get_ydata()[-1] == pytest.approx(-5.0)
    caption = next(text for text in figure.texts if text.get_gid() == "caption").get_text()
    assert "They differ in model.shortcut." in caption.replace("\n", " ")


def test_of_several_profiles_one_is_shown(tmp_path, capsys):
    runs = [made(tmp_path, net) for net in WITH_DATA[:2]]
    runs += [made(tmp_path, profile="paper", seed=seed) for seed in range(2)]
    table = ra.table6(runs).set_index("net")
    assert table.loc[[*WITH_DATA[:2]], "profile"].tolist() == ["short", "short"]
    said = "left out: runs of the paper profile; shown is the short profile\n"
    assert capsys.readouterr().err == said


def test_an_experiment_of_ones_own_stands_for_no_net_of_the_paper(tmp_path, capsys):
    paper, *others = [made(tmp_path, "ResNet-20", seed=seed) for seed in range(4)]
    own = [replace(run, experiment="nesterov20", name="nesterov20") for run in others]
    assert ra.table6([paper, *own]).set_index("net").loc["ResNet-20", "seeds"] == 1
    assert "left out: nesterov20: another experiment of ResNet-20" in capsys.readouterr().err
    assert ra.table6(own).set_index("net").loc["ResNet-20", "seeds"] == 3


def test_zoom_shows_each_drop_and_fits_what_is_seen(tmp_path):
    run = made(tmp_path)
    figure = ra.zoom([run], "top1_err", width=0.1)
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 3200), (1280, 1920), (2080, 2720)]
    low, high = figure.axes[2].get_ylim()
    late = [run.curve(kind).loc[2080:2720] for kind in ("train", "test")]
    assert low <= min(curve.min() for curve in late)
    assert max(curve.max() for curve in late) <= high < 60
    plateau = made(tmp_path, seed=1, changes={"recipe.schedule": "plateau"})
    with (plateau.path / "metrics.jsonl").open("a") as file:
        file.write('{"kind":"event","iter":900,"event":"lr_drop","value":0.01}\n')
    whole, _ = ra.zoom([ra.load_run(plateau.path)]).axes
    assert [x.get_xdata()[0] for x in whole.lines if x.get_linestyle() == ":"] == [900]
    with pytest.raises(ValueError, match="one schedule are needed, not of 2"):
        ra.zoom([run, made(tmp_path, profile="quick")])


def test_runs_side_by_side_are_distinguished(tmp_path):
    runs = [made(tmp_path), made(tmp_path, seed=1), made(tmp_path, "ResNet-20")]
    figure = ra.zoom(runs)
    _, labels = figure.axes[0].get_legend_handles_labels()
    assert labels == ["plain-20 seed 0", "plain-20 seed 1", "ResNet-20"]
    mine = made(tmp_path, name="mine", seed=1)
    assert names(*runs[1:], mine) == ["cifar10_plain20", "ResNet-20", "mine"]


def test_a_run_that_has_only_begun_can_be_looked_at(tmp_path):
    run = made(tmp_path, state="running", until=60)
    assert ra.summary([run])["test error"].isna().all()
    assert len(ra.curve_table([run])) == 1
    assert len(ra.overview(run).axes) == 2
    assert ra.curve_table([]).empty
    assert ra.response_table([run]).empty
