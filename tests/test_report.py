"""The page that shows the study: whole, true to the tables, safe, readable, also in a browser."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest
from PIL import Image

from fabricate import fabricate, imagenet_run
from resnet_repro.analysis import report, style
from resnet_repro.analysis.exhibits import run_exhibits
from resnet_repro.analysis.load import load_runs
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.items import ITEMS
from resnet_repro.items.table6 import table6

HOSTILE = '<img src=x onerror="alert(1)">'
VOID = {"meta", "img", "wbr", "br"}


class Page(HTMLParser):
    """A parsed page; refuses tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.tables = {}
        self.text = ""
        self._open = []
        self._table = None
        self._label = None
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        self._label = dict(attrs).get("aria-label", self._label)
        if tag == "table":
            self._table = self.tables.setdefault(str(self._label), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data
        if {"td", "th"} & set(self._open) and self._table:
            self._table[-1][-1] += data


def show_only(patch, *items):
    patch.setattr(report, "ITEMS", {name: ITEMS[name] for name in items})
    patch.setattr(report, "DRAWINGS", {})


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def write(root, out, *args):
    code = report.main(["--runs", str(root), "--out", str(out), *args])
    return code, out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Runs of two profiles, some of them in trouble."""
    root = tmp_path_factory.mktemp("results") / "runs"
    for label in ("plain-20", "plain-56", "ResNet-20"):
        for seed in range(3):
            fabricate(root, label, seed=seed, probes=True, test=9.0 + seed / 10)
    fabricate(root, "plain-20", profile="quick")
    fabricate(root, "plain-56", profile="quick", state="running", until=200)
    failed = fabricate(root, "plain-32", profile="quick", state="failed", until=100)
    change(failed / "status.json", reason=f"OSError: {failed}/checkpoints: {HOSTILE}")
    change(
        fabricate(root, "plain-44", profile="quick") / "meta.json",
        net={"label": HOSTILE, "params": 1},
        hardware={"label": f'"{HOSTILE}'},
        deviations={"recipe.lr": [0.1, HOSTILE], "recipe.max_iters": [64000, 400]},
    )
    fabricate(root, "plain-44", profile="quick", name=HOSTILE)
    torn = fabricate(root, "ResNet-20", profile="quick") / "metrics.jsonl"
    torn.write_text("not a record\n" + torn.read_text())
    return root


@pytest.fixture(scope="module")
def written(study):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 20)  # of the PNGs, which the page does not use
        for listed, slow in (("ITEMS", "gradients"), ("DRAWINGS", "fig3")):  # and like the others
            items = getattr(report, listed)
            patch.setattr(report, listed, {name: items[name] for name in items if name != slow})
        return write(study, study.parent / "report" / "index.html")


@pytest.fixture(scope="module")
def page(written):
    return Page(written[1])


def test_no_link_and_no_image_is_broken(page, study):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [str(a[key]) for _, a in page.tags for key in ("href", "src") if key in a]
    assert len(targets) > 40
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in ids, target
        elif not target.startswith("data:image/svg+xml;base64,"):
            assert (study.parent / "report" / unquote(target)).is_dir(), target


def test_it_needs_no_network_runs_no_script_and_shows_what_runs_say_as_text(page, written):
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert "url(" not in written[1]
    assert "@import" not in written[1]
    assert not re.search(r"https?:|//", re.sub(r"data:[^\"]*", "", written[1]).replace("</", ""))
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        assert tag != "img" or str(attrs["src"]).startswith("data:")
    assert page.text.count(HOSTILE) >= 4  # name, label, hardware, reason, deviation


def test_every_claim_is_there_with_its_evidence(page):
    claims = [f"C{n}" for n in range(1, 11)]
    ids = {attrs.get("id") for _, attrs in page.tags}
    for profile in ("paper", "quick"):
        rows = page.tables[f"Claims, profile {profile}"][1:]
        assert [row[0] for row in rows] == claims
        assert all(len(row[2]) > 30 for row in rows)
        assert {f"{profile}-{claim}" for claim in claims} <= ids
    assert [row[0].split()[0] for row in page.tables["Claims by profile"][1:]] == claims


def test_numbers_are_those_of_the_table(page, study):
    head, *rows = page.tables["table6, paper"]
    table = table6(load_runs(study, profile="paper"))
    assert head[:5] == ["net", "test error", "sd", "paper", "verdict"]
    assert set(head) == set(table.columns)
    assert [row[0] for row in rows] == list(table["net"])
    numbers = 0
    for row, (_, expected) in zip(rows, table.iterrows(), strict=True):
        for name, cell in zip(head, row, strict=True):
            if isinstance(expected[name], float) and not pd.isna(expected[name]):
                assert cell == f"{expected[name]:.2f}", (row[0], name)
                numbers += 1
    assert numbers > 25
    (ours,) = [row for row in rows if row[0] == "ResNet-20"]
    assert ours[1:4] == ["9.10", "0.10", "8.75"]
    assert " ".join(ours[4].split()).startswith("reproduced (+0.35 points")


def test_figures_stand_beside_the_papers(page):
    alts = [str(attrs["alt"]) for tag, attrs in page.tags if tag == "img"]
    assert all(len(alt) > 20 for alt in alts)
    for figure in ("Fig. 1", "Fig. 6", "Fig. 7"):
        assert any(alt.startswith(f"The paper's own curves: {figure}") for alt in alts)
        assert any(alt.startswith(figure) and "seeds 0-2" in alt for alt in alts)
    assert sum(alt.startswith(("Fig. 2", "Fig. 5")) for alt in alts) == 2
    short, paper = page.text.split("Profile paper")[-1], page.text.split("Profile quick")[0]
    assert "do not compare point by point (quick profile)" in short
    assert "point by point" not in paper


def test_runs_are_listed_in_whatever_state_and_what_is_missing_is_named(page, written, study):
    rows = {row[0]: row for row in page.tables["Runs, profile quick"][1:]}
    assert len(rows) == 6
    assert rows["cifar10_plain56/seed0"][2:4] == ["running", "200 of 400"]
    assert rows["cifar10_plain32/seed0"][2].startswith("failed OSError: checkpoints")
    assert len(page.tables["Runs, profile paper"]) == 1 + 9
    assert page.tables["Runs, profile paper"][1][4] == "9.00"
    assert str(study) not in page.text
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert sections == ["claims", *[p for p in report.WHAT if p != "short"], "nets"]
    rows = page.tables["Differences from the paper, profile quick"][1:]
    assert ["recipe.max_iters", "64,000", "400", "cifar10_plain44"] in rows
    assert "Experiments without a finished run of this profile" in page.text
    assert "cifar10_resnet1202" in page.text
    assert written[0] == 0
    assert "quick/cifar10_resnet20/seed0/metrics.jsonl: line 1 is not a record" in page.text


def test_runs_that_stand_for_no_net_and_a_broken_exhibit_are_named_and_do_not_stop_the_page(
    tmp_path, monkeypatch, capsys
):
    def broken(runs):
        raise RuntimeError(f"{runs[0].path}/x <b>")

    show_only(monkeypatch, "fig1", "table6")
    monkeypatch.setitem(report.ITEMS, "fig1", replace(report.ITEMS["fig1"], figure=broken))
    fabricate(tmp_path, "plain-20", profile="quick")
    fabricate(tmp_path, "plain-20", profile="quick", seed=1, changes={"recipe.lr": 0.5})
    code, text = write(tmp_path, tmp_path / "report.html")
    assert code == 0
    assert "quick/cifar10_plain20 seed 1: recipe.lr=0.5, not 0.1; stands for no net" in text
    assert "Not shown. RuntimeError: quick/cifar10_plain20/seed0/x &lt;b&gt;" in text
    (row,) = [row for row in Page(text).tables["table6, quick"] if row[0] == "plain-20"]
    assert "quick" in row
    for seed, code in ((1, 0), (0, 1)):  # 1 where nothing is left to draw
        (tmp_path / "quick" / "cifar10_plain20" / f"seed{seed}" / "meta.json").unlink()
        found, text = write(tmp_path, tmp_path / "report.html")
        assert found == code
        assert f"quick/cifar10_plain20/seed{seed}/meta.json: cannot be read" in text
        assert ("table6, quick" in Page(text).tables) == (code == 0)
    assert "not shown: quick: " in capsys.readouterr().err


def test_runs_on_imagenet_alone_are_shown(tmp_path):
    runs = [load_run(imagenet_run(tmp_path, net)) for net in ("plain-18", "ResNet-18 A")]
    (shown,) = run_exhibits(runs, {"fig4": ITEMS["fig4"]})
    assert shown.picture is not None


def test_nets_of_one_name_on_two_data_sets_are_two_tests(tmp_path):
    runs = []
    for data, worse in (("cifar10", 30.0), ("mine", 50.0)):
        for label, error in (("plain-20", 20.0), ("plain-56", worse)):
            experiment = f"{data}_{label.replace('-', '')}"
            how = {"name": experiment, "profile": "short", "test": error}
            changes = {"experiment": experiment, "data.name": data}
            runs.append(load_run(fabricate(tmp_path, label, changes=changes, **how)))
    claims, problems = report._claims(runs)
    assert problems == []
    verdicts = [(claim.id, claim.verdict) for claim in claims if claim.id in ("C1", "C3")]
    assert sorted(verdicts) == [("C1", "open"), ("C1", "open"), ("C3", "no runs")]


def test_a_profile_in_which_nothing_is_finished_comes_last_and_claims_nothing(
    tmp_path, monkeypatch
):
    show_only(monkeypatch)
    root, out = tmp_path / "runs", tmp_path / "page.html"
    code, text = write(root, out)
    assert (code, "No run is logged yet." in Page(text).text) == (0, True)
    fabricate(root, "plain-20", state="preempted", until=6000)
    assert "No run is finished yet." in Page(write(root, out)[1]).text
    fabricate(root, "plain-20", profile="quick")
    page = Page(write(root, out)[1])
    assert page.text.index("Profile quick:") < page.text.index("Profile paper:")
    assert page.tables["Claims by profile"][0] == ["claim", "quick"]
    assert "Claims, profile paper" not in page.tables
    assert page.tables["Runs, profile paper"][1][2:4] == ["preempted", "6,000 of 64,000"]


def test_equal_results_give_equal_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "DPI", 20)
    first, second = tmp_path / "one" / "results", tmp_path / "two" / "results"
    fabricate(first / "runs", "plain-20", profile="quick")
    shutil.copytree(first, second)
    show_only(monkeypatch, "fig1", "table6")
    pages = [write(root / "runs", root / "report" / "index.html") for root in (first, second)]
    assert pages[0] == pages[1]
    monkeypatch.setenv("RESNET_REPRO_RUNS", str(second / "runs"))  # instead of --runs
    out = second / "report" / "index.html"
    out.unlink()
    assert (report.main(["--out", str(out)]), out.read_text(encoding="utf-8")) == pages[0]
    other = write(first / "runs", tmp_path / "p.html", "--profiles", "paper")[1]
    assert "cifar10_plain20" not in other


def test_every_item_names_the_claims_it_bears_on():
    bearing = {name: [claim.id for claim in item.claims] for name, item in ITEMS.items()}
    assert bearing["fig6"] == ["C1", "C2", "C3", "C4", "C5"]
    assert (bearing["table3"], bearing["deviations"]) == (["C8", "C9"], [])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme):
    css = (report.TEMPLATES / "report.css").read_text(encoding="utf-8")
    light, dark = css.split("@media (prefers-color-scheme: dark)")[:2]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    if theme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))
    pairs = [(text, ground) for text in ("ink", "soft", "link") for ground in ("ground", "card")]
    pairs += [(look, f"{look}-ground") for look in ("good", "bad", "open", "none")]
    for text, ground in pairs:
        bright, dim = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (theme, text, ground)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# The page in a frame of a device's width: a window cannot be made as narrow as a phone.
FRAME = """<body style="margin:0">
<iframe src="{page}" style="width:{width}px;height:{height}px;border:0"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const images = [...page.images];
  document.title = JSON.stringify({{
    images: images.length,
    broken: images.filter(image => !image.complete || !image.naturalWidth).length,
    wide: page.documentElement.scrollWidth,
    ground: getComputedStyle(page.body).backgroundColor,
  }});
}};
</script>"""


def look_at(path, place, width, *, dark):
    """Open a page so wide; return what the browser says of it, and a screenshot."""
    frame, shot = place / "frame.html", place / "shot.png"
    text = FRAME.format(page=path.as_uri(), width=width, height=3000)
    frame.write_text(text, encoding="utf-8")
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--allow-file-access-from-files", f"--user-data-dir={place / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--window-size={max(width, 600)},3000", f"--screenshot={shot}",
    ]  # fmt: skip
    for more in (["--dump-dom", frame.as_uri()], [frame.as_uri()]):
        done = subprocess.run([*command, *more], capture_output=True, text=True)
        if "--dump-dom" in more:
            measured = re.search(r"<title>(.*?)</title>", done.stdout)
            assert measured, done.stderr[-2000:]
    return json.loads(measured[1].replace("&quot;", '"')), shot


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "phone"])
@pytest.mark.usefixtures("written")
def test_the_page_in_a_browser(study, tmp_path, width, dark):
    page = study.parent / "report" / "index.html"
    measured, shot = look_at(page, tmp_path, width, dark=dark)
    assert measured["images"] >= 8
    assert measured["broken"] == 0
    assert measured["wide"] <= width, "nothing makes the page itself scroll sideways"
    red, green, blue = map(int, re.findall(r"\d+", str(measured["ground"]))[:3])
    assert (red + green + blue < 150) == dark
    picture = Image.open(shot).convert("RGB").crop((0, 0, width, 3000))
    assert len(picture.getcolors(1 << 24) or []) > 200, "text and figures, not an empty page"
