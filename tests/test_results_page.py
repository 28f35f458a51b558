"""README and results page say what the runs say; their figures come out the same again."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from fabricate import ENDS, fabricate, shift_errors
from pages import write
from pages.study import COMMITTED, TABLES, Study, draw
from pages.write import BLOCKS, PAGES, RUNS, main, outdated, rewrite
from resnet_repro.analysis import paper
from resnet_repro.analysis.judge import ClaimResult, check
from resnet_repro.config import PROFILES
from resnet_repro.items import CLAIMS, ITEMS
from resnet_repro.paths import REPOSITORY as REPO

README, PAGE, _ = PAGES
pytestmark = pytest.mark.usefixtures("coarse_figures")


@pytest.fixture(scope="module")
def committed():
    return Study(REPO / RUNS)


def test_the_committed_pages_say_what_the_committed_runs_say(committed):
    texts = {name: (REPO / name).read_text(encoding="utf-8") for name in PAGES}
    for text in texts.values():
        assert text == rewrite(text, committed), "make results"
        assert outdated(text, committed.claims) == []
    assert {*re.findall(r"<!-- made: (.+?) -->", "".join(texts.values()))} == {*BLOCKS}
    linked = re.findall(r"\]\(((?:figures|tables)/[^)]+)\)", texts[PAGE])
    assert len(linked) > 5
    for name in linked:
        assert (REPO / "docs" / name).is_file(), name


def test_the_committed_tables_are_those_of_the_runs(tmp_path, committed):
    compared = 0
    for name in TABLES:
        runs = committed.item(name)
        for path in ITEMS[name].draw(runs, tmp_path) if runs else ():
            kept = REPO / "docs" / "tables" / path.name
            assert kept.read_bytes() == path.read_bytes(), f"{kept}: make results"
            compared += 1
    assert compared >= 6


def test_an_item_without_words_trains_nothing_and_draws_what_is_committed(tmp_path, run_script):
    away = shutil.ignore_patterns("checkpoints", ".*", *({*PROFILES} - {*COMMITTED}))
    shutil.copytree(REPO / RUNS, tmp_path / "runs", ignore=away)
    before = sorted(path for path in (tmp_path / "runs").rglob("*") if path.is_file())
    run_script("claims", "--out", tmp_path / "tables", f"runs_dir={tmp_path}/runs")
    assert sorted(path for path in (tmp_path / "runs").rglob("*") if path.is_file()) == before
    drawn = sorted((tmp_path / "tables").iterdir())
    assert [path.name for path in drawn] == ["claims.csv", "claims.md", "claims.tex"]
    for path in drawn:
        assert path.read_bytes() == (REPO / "docs" / "tables" / path.name).read_bytes()
        assert b" profile, " in path.read_bytes()  # it says what it is


@pytest.fixture
def four(tmp_path):
    root = tmp_path / RUNS
    for label in ("plain-20", "plain-56", "ResNet-20", "ResNet-56"):
        fabricate(root, label, profile="short", probes=True)
    return root


def rows_of_table_6(study):
    lines = BLOCKS["table 6"](study).splitlines()[:13]
    return {line.split("|")[1].strip(): line for line in lines}


DRAWN = ("fig1", "fig4", "fig7")  # of fig4 there are no runs


def test_figures_and_tables_are_the_same_bytes_in_another_process_and_old_ones_are_removed(
    tmp_path, four, monkeypatch
):
    monkeypatch.setattr("pages.study.FIGURES", DRAWN)
    for old in ("figures/fig4.png", "figures/agreement.svg", "tables/table3.md", "tables/mine.md"):
        (tmp_path / "here" / old).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / old).touch()
    written = draw(Study(four), tmp_path / "here")
    names = {path.name for path in written}
    assert {"fig1.png", "fig7.svg", "table6.md"} <= names
    kept = {path.name for path in (tmp_path / "here").rglob("*.*")}
    assert kept == {*names, "mine.md"}
    code = (
        "import sys; from pathlib import Path\n"
        "from resnet_repro.analysis import style; style.DPI = 20\n"
        f"from pages import study; study.FIGURES = {DRAWN}\n"
        "study.draw(study.Study(Path(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(four), str(tmp_path / "there")]
    other = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run(command, env=os.environ | other, cwd=REPO, check=True)
    for path in written:
        there = tmp_path / "there" / path.relative_to(tmp_path / "here")
        assert there.read_bytes() == path.read_bytes(), path.name


def test_a_run_that_did_not_finish_is_a_curve_as_far_as_it_goes_and_nothing_else(four):
    before = BLOCKS["claims"](Study(four)), BLOCKS["table 6"](Study(four))
    stopped = {"profile": "short", "until": 1_000}
    fabricate(four, "plain-32", state="preempted", **stopped)
    fabricate(four, "plain-44", state="diverged", **stopped)
    fabricate(four, "plain-20", name="check_fp32", state="preempted", precision="fp32", **stopped)
    fabricate(four, "ResNet-56", profile="paper", state="preempted", until=40_000)
    study = Study(four)
    runs = BLOCKS["runs"](study)
    assert "plain-20, plain-56, ResNet-20, ResNet-56 " in runs
    assert "- in no table: `short/cifar10_plain32/seed0`, bf16, stopped at iteration 1,000" in runs
    assert "- in no table: `paper/cifar10_resnet56/seed0`, bf16, stopped" in runs
    assert "- given up, in no figure or table: `short/cifar10_plain44/seed0` diverged" in runs
    assert ", in no figure or verdict: `short/check_fp32/seed0`, fp32" in runs
    assert "plain-20, seed 0, fp32" not in BLOCKS["first update"](study)  # it logged no gradients
    curves = BLOCKS["curves"](study)
    assert re.search(r"\| ResNet-56 +\| test error +\| paper +\| 1 .* 33,000 to 40,000 ", curves)
    assert (BLOCKS["claims"](study), BLOCKS["table 6"](study)) == before
    (broken := four / "paper" / "cifar10_plain110" / "seed0").mkdir(parents=True)
    (broken / "config.yaml").write_text("seed: [")
    assert any("paper/cifar10_plain110/seed0" in line for line in Study(four).left_out)


def test_a_page_of_no_runs_says_so(tmp_path):
    study = Study(tmp_path)
    output = {name: block(study) for name, block in BLOCKS.items()}
    assert output["runs"] == "No run is finished yet."
    assert output["fig1"] == "No run of it is logged yet."
    assert output["curves"].startswith("No logged curve has an iteration in common")
    assert output["claims"].count("no runs") == 10
    assert output["table 6"].count("no runs") == 11
    assert output["results"].startswith("No run is logged")
    assert draw(study, tmp_path / "docs") == []


def test_the_readme_has_the_longest_runs_and_no_paper_value_for_another_schedule(tmp_path):
    def rows(text):
        lines = (line.split("|")[1:-1] for line in text.splitlines())
        cells = [[cell.split(" (")[0].strip() for cell in line] for line in lines]
        return [row for row in cells if row and row[0] in ("plain-20", "ResNet-20", "ResNet-56")]

    for seed in range(2):
        fabricate(tmp_path, "plain-20", profile="short", seed=seed, test=50.0 + seed)
        changes = {"experiment": "cifar10_resnet56_45k", "data.train_split": "45k"}
        fabricate(tmp_path, "ResNet-56", profile="short", seed=seed, changes=changes)
    text = BLOCKS["results"](Study(tmp_path))
    assert text.startswith("**No run by the paper's protocol is finished yet.")
    short = ["plain-20", "2", "50.50 +- 0.71", "37.80", "-", "not comparable: short profile"]
    assert rows(text) == [short]
    for seed in range(2):
        fabricate(tmp_path, "ResNet-20", seed=seed, test=8.7)
    text = BLOCKS["results"](Study(tmp_path))
    assert "No run by the paper's protocol" not in text
    assert "figures/fig6.png" in text
    assert "figures/fig1.png" not in text  # it would be of the short profile
    assert rows(text) == [["ResNet-20", "2", "8.70 +- 0.00", "0.63", "8.75", "reproduced"]]


def test_responses_are_compared_with_the_papers_and_a_look_with_the_runs_it_changes(tmp_path):
    assert BLOCKS["responses"](Study(tmp_path)) == "No run has logged them yet."
    theirs = paper.responses("ResNet-20")
    ours = theirs * ([0.5] * (len(theirs) - 1) + [0.8])
    fabricate(tmp_path, "ResNet-20", responses=list(ours))
    for name, changes in ((None, {}), ("check_decay", {"recipe.decay_bn": False})):
        more = {"name": name, "changes": changes, "responses": list(2 * ours)}
        fabricate(tmp_path, "ResNet-20", profile="short", **more)
    _, _, row, short, look = BLOCKS["responses"](Study(tmp_path)).splitlines()
    name, *values, correlation = row.strip("| ").split("|")
    assert name.strip() == "ResNet-20, seed 0, paper profile"
    means = [ours.mean(), theirs.mean(), ours.min(), theirs.min(), 0.5 + 0.3 / len(theirs)]
    assert list(map(float, values)) == pytest.approx(means, abs=0.006)
    assert float(correlation) == pytest.approx(theirs.corr(ours), abs=0.006)
    assert short.startswith("| ResNet-20, seed 0, short profile ")
    assert look.startswith("| ResNet-20, seed 0, recipe.decay_bn=false, short profile ")


def test_claims_say_all_that_is_mixed_but_the_hardware(tmp_path):
    fabricate(tmp_path, "plain-20", precision="fp32", hardware="2 CPU cores, Intel(R) Xeon(R)")
    fabricate(tmp_path, "plain-56", hardware="1x A")
    block = BLOCKS["claims"](Study(tmp_path))
    first = next(line for line in block.splitlines() if line.startswith("- **C1 "))
    assert first.endswith("Mixed precision: bf16 (plain-56 seed 0); fp32 (plain-20 seed 0).")
    whole = check(CLAIMS, Study(tmp_path).finished)[0].line()
    assert "Mixed hardware: 1x A (plain-56 seed 0)" in whole


def test_a_look_is_compared_with_the_run_it_varies_and_the_papers_curve(tmp_path):
    more = {"name": "check_decay", "state": "preempted", "until": 40_000}
    look = fabricate(tmp_path, "ResNet-20", changes={"recipe.decay_bn": False}, **more)
    fabricate(tmp_path, "ResNet-20", name="check_again", until=40_000)  # which changes nothing
    assert BLOCKS["looks"](Study(tmp_path)) == "No look came so far."
    varied = fabricate(tmp_path, "ResNet-20")
    shift_errors(look, lambda _: 2, of=varied, until=40_000)
    rows = [line.strip("| ").split("|") for line in BLOCKS["looks"](Study(tmp_path)).splitlines()]
    head, _, *rows = [[cell.strip() for cell in row] for row in rows]
    assert head[4:] == ["paper", "the run", "the look"]
    assert [row[3] for row in rows] == 2 * ["3,000 to 32,000", "33,000 to 40,000"]
    for row in rows:
        assert row[0] == "ResNet-20, seed 0, recipe.decay_bn=false"
        assert float(row[6]) == pytest.approx(float(row[5]) + 2, abs=0.011)
    theirs = paper.curve(6, "ResNet-20", "test").loc[33_000:40_000].mean()
    assert float(rows[-1][4]) == pytest.approx(theirs, abs=0.006)


def test_where_the_deeper_residual_net_overtakes_the_other_is_read_off_our_runs_too(tmp_path):
    theirs = BLOCKS["crossing"](Study(tmp_path))
    assert "our runs" not in theirs
    shallow, deep = (fabricate(tmp_path, f"ResNet-{depth}") for depth in (20, 56))
    last_above = {"train": 10_000, "test": 25_000, "train_clean": 0}
    shift_errors(deep, lambda r: 1 if r["iter"] <= last_above[r["kind"]] else -1, of=shallow)
    ours = "; in our runs up to iteration 10,000 in training error and 25,000 in test error (means"
    assert BLOCKS["crossing"](Study(tmp_path)) == theirs.replace(" (means", ours)


def test_precisions_are_compared_with_seeds_from_each_checkpoint(tmp_path):
    study = Study(tmp_path / "runs")
    assert "has not been measured yet" in BLOCKS["precision control"](study)
    gradients = {"from": 2000, "batches": 8, "rounding": 0.11, "sampling": 0.9, "on": "a core"}
    readings = {
        "bf16, channels last, seed 0": (1.86, 67.0),
        "fp32, channels last, seed 0": (1.85, 66.0),
        "fp32, NCHW, seed 0": (1.83, 68.5),
        "bf16, channels last, seed 1001": (1.80, 66.5),
    }
    start = {"from": 2000, "iterations": 500}
    end = {"test_error": 68.0, "made": "", "revision": "", "on": "a core"}
    rows = [
        start | {"continuation": way, "loss": loss, "clean_train_error": error} | end
        for way, (loss, error) in readings.items()
    ]
    saved = {"net": "plain-56", "run": "paper/cifar10_plain56/seed0", "precision": "bf16"}
    (tmp_path / "bench").mkdir()
    path = tmp_path / "bench" / "precision_cifar10_plain56_cpu.json"
    path.write_text(json.dumps(saved | {"gradients": [gradients], "rows": rows}))
    text = BLOCKS["precision control"](study)
    assert re.search(r"\| plain-56 +\| 2,000 +\| 11 +\| 90 +\| 8 ", text)
    assert re.search(r"\| 2,000 +\| 500 +\| fp32, NCHW, seed 0 +\| 1\.8300 +\| 68\.50 ", text)
    spread = "by precision and layout 0.0300 and 2.50 points, by seed 0.0600 and 0.50 points."
    assert text.endswith(f"mean loss and clean training error differ {spread}")


def test_only_blocks_change_and_broken_ones_are_refused(four):
    study = Study(four)
    text = "by hand\n<!-- made: fig1 -->\nold\n<!-- end -->\nby hand\n"
    new = rewrite(text, study)
    assert new.startswith("by hand\n<!-- made: fig1 -->\n![Fig. 1")
    assert new.endswith("\n<!-- end -->\nby hand\n")
    assert rewrite(new, study) == new
    with pytest.raises(ValueError, match="no block is called fig99; one of results, sweep, runs"):
        rewrite(text.replace("fig1", "fig99"), study)
    with pytest.raises(ValueError, match="not all end"):
        rewrite("<!-- made: fig1 -->\nold\n", study)


def test_a_reading_of_another_verdict_is_named():
    claims = [ClaimResult("C1", "", "holds", ""), ClaimResult("C10", "", "fails", "")]
    assert outdated("<!-- reads: C1 holds, C10 fails -->", claims) == []
    assert outdated("<!-- reads: C1 holds, C10 holds -->\n<!-- reads: C3 fails -->", claims) == [
        "<!-- reads: C1 holds, C10 holds -->: C10 is now fails",
        "<!-- reads: C3 fails -->: C3 is now not known",
    ]


def test_the_command_writes_the_page_and_names_what_must_be_read_again(
    tmp_path, four, capsys, monkeypatch
):
    monkeypatch.setattr("pages.study.FIGURES", ("fig1",))
    page = tmp_path / PAGE
    page.parent.mkdir(exist_ok=True)
    page.with_name("FIDELITY.md").touch()
    page.write_text("<!-- made: runs -->\n<!-- end -->\n<!-- reads: C5 holds -->\n")
    (tmp_path / README).write_text("a\n<!-- made: results -->\n<!-- end -->\nb\n")
    assert main(["--repo", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "docs/figures/fig1.png" in out
    assert err.startswith("docs/RESULTS.md: read again: <!-- reads: C5 holds -->: C5 is now")
    assert "| short     | CIFAR-10 | plain-20, plain-56" in page.read_text()
    readme = (tmp_path / README).read_text()
    assert readme.startswith("a\n<!-- made: results -->\n**No run by the paper's protocol is fin")
    assert readme.endswith("\n<!-- end -->\nb\n")
    page.write_text("<!-- made: runs -->\n<!-- end -->\n")
    monkeypatch.setattr(write, "draw", lambda *_: [])
    assert main(["--repo", str(tmp_path)]) == 0


def test_finished_runs_of_the_papers_protocol_decide(tmp_path, four):
    """Table 6 with verdicts, every CIFAR claim, curves compared: the page of the whole study."""
    for label, (test, train) in ENDS["paper"].items():
        for seed, shift in enumerate((-0.1, 0.0, 0.1)):
            errors = {"test": test + shift, "train": train + shift / 20}
            probes = int(label.split("-")[1]) <= 110
            fabricate(four, label, seed=seed, probes=probes, **errors)
    study = Study(four)
    verdicts = {claim.id: claim.verdict for claim in study.claims if claim.profile == "paper"}
    assert verdicts == dict.fromkeys(("C1", "C2", "C3", "C4", "C5", "C6"), "holds") | {
        "C10": "fails"  # made to explode
    }
    rows = rows_of_table_6(study)
    for label in ENDS["paper"]:
        verdict = {"plain-110": "above 60 is claim C1", "ResNet-1202": "no verdict ("}
        assert verdict.get(label, "reproduced (") in rows[label], rows[label]
        assert label == "plain-110" or "; 3 seeds)" in rows[label]
    curves = BLOCKS["curves"](study)
    (end,) = re.findall(r"\| ResNet-20 .* test error .*\| 0\.001 .*", curves)
    assert "reproduced" in end
    assert "plain-20, seed 0, bf16" in BLOCKS["gradient precision"](study)
    assert re.search(r"\| precision +\| fp32 +\| bf16 +\| every run", BLOCKS["protocol"](study))
    page = " ".join(BLOCKS["results"](study).split())
    setting = "CIFAR-10, paper profile, 3 seeds each, 64,000 iterations, test error 9.7 to 65.0 %"
    assert f"| C1: plain nets: test error rises with depth | holds | {setting} |" in page
    assert "short profile" not in page  # each net stands by its longest schedule
    assert "figures/fig1.png" in page
    assert "figures/fig6.png" in page


def test_claims_and_tables_are_of_the_papers_protocol_first_figures_from_two_of_its_nets_on(
    tmp_path, four, monkeypatch
):
    fabricate(four, "plain-20")
    assert {run.profile for run in Study(four).item("fig6")} == {"short"}
    fabricate(four, "plain-56")
    for depth in (20, 32, 44, 56, 110):  # quick runs are not on the pages
        fabricate(four, f"ResNet-{depth}", profile="quick")
    study = Study(four)
    assert {run.profile for run in study.finished} == {"short", "paper"}
    assert {run.profile for run in study.item("fig6")} == {"paper"}
    verdicts = {claim.id: (claim.verdict, claim.profile) for claim in study.claims}
    assert verdicts["C1"] == ("holds", "paper")
    assert verdicts["C2"] == ("inconclusive", "paper")  # one seed
    assert verdicts["C4"] == ("open", "short")
    table = rows_of_table_6(study)
    assert "| reproduced (" in table["plain-20"]
    assert "| not comparable: short profile" in table["ResNet-20"]
    monkeypatch.setattr("pages.study.FIGURES", ())  # only tables are drawn
    written = {path.name: path for path in draw(study, tmp_path / "docs")}
    claims = written["claims.md"].read_text()
    assert re.search(r"\| C1 .*\| holds ", claims)
    assert re.search(r"\| C4 .*\| open ", claims)
    assert "| reproduced (" in written["table6.md"].read_text()
