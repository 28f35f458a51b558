"""docs/SPEED.md: made from the files of results/bench, whatever is in them."""

import json
import re

import pytest

from benchmarks.measured import Measured, amount, load, percent, seconds, significant
from benchmarks.page import page, save, where_lost
from benchmarks.page_growth import BY_BATCH, BY_DEPTH, label, lines, points
from benchmarks.page_targets import MISSED, OPEN, REACHED, targets
from resnet_repro.options import ConfigError
from resnet_repro.paths import REPOSITORY as REPO

COMMITTED = {found.part: found.content for found in load(REPO / "results" / "bench")}
H200 = {"label": "1x NVIDIA H200", "gpu": "NVIDIA H200"}


def measured(part, device="cpu", *rows, **content):
    """What is committed of a part, with changes to its first rows and its head."""
    kept = COMMITTED[part]
    if rows:
        content["rows"] = [a | b for a, b in zip(kept["rows"], rows, strict=False)]
    if device == "cuda":
        content = {"hardware": H200, "precision": "tf32", "threads": 16} | content
    return Measured(part, device, kept | content)


def judged(found):
    return [target.judge([found]) for target in targets()]


def faster(ratio, device="cpu", net="ResNet-20", **content):
    return measured("training", device, {"net": net, "times_faster": ratio}, **content)


def figure(took):
    kinds = [{"what": "--help", "seconds": 0.6}, {"what": "x", "kind": "figure", "seconds": took}]
    return measured("start", "cpu", *kinds)


def run(took, device="cuda", depth=20):
    return measured("cost", device, {"run_seconds": took, "depth": depth})


def growth(device="cpu"):
    points = ((20, 8, 1), (56, 8, 1), (110, 8, 1), (20, 32, 1), (20, 8, 4))
    rows = [
        {"experiment": f"cifar10_resnet{depth}", "depth": depth, "batch_size": batch, "runs": runs,
         "seconds_per_image": 2e-4 * depth / runs, "bytes_per_image": 10_000 * depth}
        for depth, batch, runs in points[: 5 if device == "cuda" else 4]
    ]  # fmt: skip
    failed = {"depth": 1202, "batch_size": 8, "failed": "out of memory"}
    failed |= dict.fromkeys(("seconds_per_image", "bytes_per_image"))
    return measured("growth", device, *rows, failed)


@pytest.mark.parametrize(
    ("found", "target", "verdict"),
    [
        (faster(2.1), "ResNet-20: 2 times", REACHED),
        (faster(1.9), "ResNet-20: 2 times", MISSED),
        (faster(2.1, net="ResNet-56"), "ResNet-56: 2 times", REACHED),
        (faster(2.1, net="ResNet-56"), "ResNet-20: 2 times", OPEN),
        (faster(2.1, threads=4), "ResNet-20: 2 times", OPEN),
        (faster(12, "cuda"), "ResNet-20: 10 times", REACHED),
        (faster(12, "cuda", hardware=H200 | {"gpu": "other"}), "ResNet-20: 10 times", OPEN),
        (figure(4.9), "any figure", REACHED),
        (figure(5.1), "any figure", MISSED),
        (figure(5.1), "`--help`", REACHED),
        (run(44), "ResNet-20, plain-20", REACHED),
        (run(46), "ResNet-20, plain-20", MISSED),
        (run(1400, depth=1202), "ResNet-1202", REACHED),
        (run(44, "cpu"), "ResNet-20, plain-20", OPEN),
        (growth("cuda"), "runs at once", REACHED),
        (growth("cpu"), "runs at once", OPEN),
        (measured("parity", "cpu", {"passed": False}), "parity", MISSED),
        (measured("training", "cpu", *({"net": "ResNet-20", "times_faster": ratio}
          for ratio in (2.5, 1.5))), "ResNet-20: 2 times", MISSED),  # the worst counts
    ],
)  # fmt: skip
def test_a_target_is_judged_by_what_was_measured(found, target, verdict):
    assert verdict in [row[-1] for row in judged(found) if row[0].startswith(target)]


def test_the_harness_is_judged_with_and_without_evaluation():
    shares = {"share_of_harness": 0.01, "share_with_evaluation": 0.035}
    found = measured("harness", "cuda", nets=[COMMITTED["harness"]["nets"][0] | shares])
    rows = {(row[0][:7], row[1]): row[2:] for row in judged(found)}
    assert rows["logging", "1x NVIDIA H200, tf32"] == ["1.0 %", REACHED]
    assert rows["the sam", "1x NVIDIA H200, tf32"] == ["3.5 %", MISSED]
    assert rows["logging", "not measured on a CPU yet"] == ["-", OPEN]


@pytest.mark.usefixtures("coarse_figures")
def test_the_page_shows_both_devices_and_whatever_else_there_is(tmp_path):
    mirror = {"part": "W&B offline: records", "kind": "optional", "times": 64}
    everything = [measured(part) for part in COMMITTED if part != "growth"]
    everything += [measured("training", "cuda"), measured("limit", "cuda"), growth("cuda")]
    everything += [growth(), run(30), measured("harness", "cuda", mirror)]
    everything.append(Measured("unheard_of", "cpu", {"part": "unheard_of", "rows": [{"a": 1}]}))
    for found in everything:
        path = tmp_path / f"{found.part}_{found.device}.json"
        path.write_text(json.dumps(found.content | {"device": found.device}), encoding="utf-8")
    (tmp_path / "other.json").write_text("[1]", encoding="utf-8")
    written = save(tmp_path, tmp_path / "docs")
    assert [path.name for path in written] == ["SPEED.md", "growth.png", "growth.svg"]
    text = written[0].read_text(encoding="utf-8")
    assert text == page(load(tmp_path))
    assert "| W&B offline: records (optional) | 64 |" in text
    assert "| 1202 | 8 | 1 | out of memory | - |" in text
    assert "of 64,000 iterations in 45 s | 1x NVIDIA H200, tf32 | 30 s | reached |" in text
    assert "unheard_of" not in text  # other commands keep their measurements there, too
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_largest_loss_is_named_from_the_numbers():
    convolutions = {"on": "convolutions", "share": 0.5, "least_share": 0.2}
    norms = {"on": "batch-norm", "share": 0.45, "least_share": 0.05}
    waiting = {"on": "waiting for the host", "share": 0.05, "least_share": 0.0}
    spent = [convolutions, norms, waiting]
    assert where_lost({"net": "ResNet-56", "spent": spent}) == (
        "ResNet-56: most is lost in batch-norm, 45 % of the time, 9.0 times its "
        "least (convolutions 50 %; waiting for the host 5.0 %)."
    )
    text = where_lost({"net": "x", "spent": [convolutions, waiting | {"share": 0.5}]})
    assert text.startswith("x: most is lost in waiting for the host, 50 % of the time, none")


def test_growth_is_drawn_where_one_thing_changes():
    by_depth, by_batch = (lines(points([growth()]), axis) for axis in (BY_DEPTH, BY_BATCH))
    assert [label(line, BY_DEPTH, True) for line in by_depth] == ["batch 8, 2 CPU cores, AMD EPYC"]
    assert by_depth[0]["depth"].tolist() == [20, 56, 110]
    assert [label(line, BY_BATCH, False) for line in by_batch] == ["ResNet-20"]


def test_the_page_says_that_nothing_was_measured_and_names_a_damaged_file(tmp_path):
    (path,) = save(tmp_path / "none", tmp_path)
    assert "Nothing is measured yet" in path.read_text(encoding="utf-8")
    (tmp_path / "training_cpu.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"training_cpu\.json"):
        load(tmp_path)


def test_numbers_are_written_for_people():
    assert [*map(significant, (0.01234, 9.96, 1234, 0))] == ["0.012", "10", "1,200", "0"]
    assert significant(2.0, 3) == "2.00"
    assert percent(0.0123) == "1.2 %"
    assert [*map(seconds, (3.21e-5, 0.0321, 1.44))] == ["32 us", "32 ms", "1.4 s"]
    assert [*map(seconds, (125, 11_400))] == ["2 min 05 s", "3 h 10 min"]
    assert (amount(4.3e12, "B/s"), amount(12)) == ("4.3 TB/s", "12 B")


def test_the_committed_page_agrees_with_the_records_and_no_record_names_a_place():
    written = (REPO / "docs" / "SPEED.md").read_text(encoding="utf-8")
    assert written == page(load(REPO / "results" / "bench")), "python -m benchmarks.page"
    for folder in ("bench", "reliability"):
        for path in (REPO / "results" / folder).glob("*.json"):
            assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text(encoding="utf-8"))
