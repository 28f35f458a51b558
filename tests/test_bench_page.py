"""docs/SPEED.md: made from the files of results/bench, whatever is in them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measured import Measured, amount, load, percent, seconds, significant
from benchmarks.page import page, save
from benchmarks.page_growth import BY_BATCH, BY_DEPTH, lines
from benchmarks.page_sections import where_lost
from benchmarks.page_targets import MISSED, OPEN, REACHED, judged

REPO = Path(__file__).resolve().parents[1]
H200 = {"label": "1x NVIDIA H200", "gpu": "NVIDIA H200", "cpu": "a CPU", "cores": 16}
TWO_CORES = {"label": "2 CPU cores, a CPU", "gpu": None, "cpu": "a CPU", "cores": 2}


def measured(part: str, device: str = "cpu", **content: Any) -> Measured:
    """A made-up file."""
    common = {
        "schema": 1,
        "part": part,
        "device": device,
        "made": "2026-01-02T03:04:05Z",
        "precision": "tf32" if device == "cuda" else "bf16",
        "threads": 16 if device == "cuda" else 2,
        "hardware": H200 if device == "cuda" else TWO_CORES,
        "versions": {"torch": "2.15.0", "python": "3.12.1"},
        "command": f"python -m benchmarks.{part}",
        "load_before": 0.1,
    }
    return Measured(part, device, common | content)


def training(device: str, faster: float, net: str = "ResNet-20", **other: Any) -> Measured:
    row = {
        "net": net,
        "experiment": "x",
        "usual_workers": 2,
        "usual_images_per_second": 100.0,
        "images_per_second": 100 * faster,
        "times_faster": faster,
        "times_faster_lowest": 0.9 * faster,
        "times_faster_highest": 1.1 * faster,
        "times_less_work": 0.8 * faster,
        "data_share": 0.01,
        "threads": 2,
        "busy_cores": 1.9,
    }
    return measured("training", device, rows=[row], **other)


def harness(device: str, share: float) -> Measured:
    common = {"net": "ResNet-20", "times": 64, "seconds_each": 0.01}
    rows = [
        common | {"part": "checkpoints", "kind": "harness", "share": share},
        common | {"part": "evaluation", "kind": "evaluation", "share": 0.025},
        common | {"part": "W&B offline: records", "kind": "optional", "share": 0.001},
    ]
    net = {
        "net": "ResNet-20",
        "step_seconds": 0.001,
        "loop_over_step": 0.01,
        "loop_over_step_lowest": -0.01,
        "loop_over_step_highest": 0.03,
        "turn_iterations": 1_000,
        "share_of_harness": share,
        "share_with_evaluation": share + 0.025,
    }
    return measured("harness", device, rows=rows, nets=[net], notes=["a note"])


def start(seconds_of_figure: float) -> Measured:
    names = [("--help", "command"), ("configuration error", "command"), ("fig6", "figure")]
    times = [0.6, 0.7, seconds_of_figure]
    rows = [
        {"what": what, "kind": kind} | dict.fromkeys(
            ("seconds", "seconds_lowest", "seconds_highest", "processor_seconds"), took
        )
        for (what, kind), took in zip(names, times, strict=True)
    ]  # fmt: skip
    return measured("start", rows=rows)


def limit(device: str = "cpu") -> Measured:
    row = {
        "net": "ResNet-56",
        "batch_size": 128,
        "bytes": 1_500_000_000,
        "operations": 10**11,
        "seconds": 0.5,
        "least_seconds_moving": 0.05,
        "least_seconds_computing": 0.1,
        "limited_by": "matrix units",
        "fraction": 0.2,
        "spent": [
            {"on": "convolutions", "share": 0.5, "least_share": 0.2},
            {"on": "batch-norm, ReLU, addition", "share": 0.45, "least_share": 0.05},
            {"on": "waiting for the host", "share": 0.05, "least_share": 0.0},
        ],
    }
    rates = {"copy_bytes_per_second": 3e10, "operations_per_second": 1e12}
    return measured("limit", device, rows=[row], **rates)


def growth(device: str = "cpu") -> Measured:
    rows = [
        {
            "experiment": f"cifar10_resnet{depth}",
            "depth": depth,
            "batch_size": batch,
            "runs": 1,
            "seconds_per_image": 1e-4 * depth,
            "bytes_per_image": 10_000 * depth,
        }
        for depth, batch in ((20, 8), (56, 8), (110, 8), (20, 32))
    ]
    failed = rows[0] | {"depth": 1202, "seconds_per_image": None, "failed": "out of memory"}
    runs = [rows[3] | {"runs": n, "seconds_per_image": 2e-3 / gain} for n, gain in ((4, 3.5),)]
    more = runs if device == "cuda" else []
    return measured("growth", device, rows=[*rows, failed, *more])


def schedule(device: str, run_seconds: float, depth: int = 20) -> Measured:
    row = {
        "net": f"plain-{depth}",
        "depth": depth,
        "step_seconds": 0.0006,
        "evaluation_seconds": 0.01,
        "ready_seconds": 3.0,
        "run_seconds": run_seconds,
    }
    return measured("schedule", device, rows=[row])


def parity(passed: bool | None) -> Measured:
    row = {
        "experiment": "cifar10_resnet20",
        "check": "losses",
        "way": "compiled",
        "precision": "bf16",
        "found": 1.5e-7,
        "allowed": 0.05,
        "costs": 0.5,
        "passed": passed,
    }
    return measured("parity", rows=[row])


def pictures() -> Measured:
    row = {"what": "the loader alone", "net": "-", "cores": 1, "images_per_second": 150.0}
    run = {
        "net": "ResNet-18",
        "iterations": 20,
        "batch_size": 16,
        "loss_of_the_first": 6.9,
        "loss_of_the_last": 2.0,
    }
    photographs = {"count": 50, "kind": "photographs"}
    return measured("pictures", rows=[row], runs=[run], photographs=photographs)


def verdicts(*found: Measured) -> dict[str, str]:
    return {what: verdict for what, _, _, verdict in judged(found)}


@pytest.mark.parametrize(
    ("found", "target", "verdict"),
    [
        (training("cpu", 2.1), "ResNet-20: 2 times", REACHED),
        (training("cpu", 1.9), "ResNet-20: 2 times", MISSED),
        (training("cpu", 2.1, "ResNet-56"), "ResNet-56: 2 times", REACHED),
        (training("cpu", 2.1, "ResNet-56"), "ResNet-20: 2 times", OPEN),
        (training("cpu", 2.1, threads=4), "ResNet-20: 2 times", OPEN),
        (training("cuda", 12), "ResNet-20: 10 times", REACHED),
        (training("cuda", 12, hardware=H200 | {"gpu": "other"}), "ResNet-20: 10 times", OPEN),
        (start(4.9), "any figure", REACHED),
        (start(5.1), "any figure", MISSED),
        (start(5.1), "`--help`", REACHED),
        (schedule("cuda", 44), "ResNet-20, plain-20", REACHED),
        (schedule("cuda", 46), "ResNet-20, plain-20", MISSED),
        (schedule("cuda", 1400, 1202), "ResNet-1202", REACHED),
        (schedule("cpu", 44), "ResNet-20, plain-20", OPEN),
        (growth("cuda"), "runs at once", REACHED),
        (growth("cpu"), "runs at once", OPEN),
        (parity(False), "parity", MISSED),
    ],
)
def test_a_target_is_judged_by_what_was_measured(
    found: Measured, target: str, verdict: str
) -> None:
    said = [word for what, word in verdicts(found).items() if what.startswith(target)]
    assert said == [verdict]


def test_the_harness_is_judged_with_and_without_evaluation() -> None:
    rows = {(row[0][:7], row[1]): row[2:] for row in judged([harness("cuda", 0.01)])}
    assert rows["logging", "1x NVIDIA H200, tf32"] == ["1.0 %", REACHED]
    assert rows["the sam", "1x NVIDIA H200, tf32"] == ["3.5 %", MISSED]
    assert rows["logging", "not measured on a CPU yet"] == ["-", OPEN]


def test_the_worst_net_counts() -> None:
    both = training("cpu", 2.5)
    rows = [*both.rows, both.rows[0] | {"times_faster": 1.5}]
    assert verdicts(measured("training", rows=rows))[
        "ResNet-20: 2 times the images a second of the usual loop"
    ] == MISSED  # fmt: skip


def test_the_page_shows_every_part(tmp_path: Path) -> None:
    devices = ("cpu", "cuda")
    everything = [
        *(training(device, 3) for device in devices),
        *(harness(device, 0.01) for device in devices),
        start(1),
        *(limit(device) for device in devices),
        *(growth(device) for device in devices),
        *(schedule(device, 30) for device in devices),
        parity(True),
        pictures(),
        measured("unheard_of", rows=[{"a": 1}]),
    ]
    for found in everything:
        path = tmp_path / f"{found.part}_{found.device}.json"
        path.write_text(json.dumps(found.content), encoding="utf-8")
    (tmp_path / "other.json").write_text("[1]", encoding="utf-8")
    written = save(tmp_path, tmp_path / "docs")
    assert [path.name for path in written] == ["SPEED.md", "growth.png", "growth.svg"]
    text = written[0].read_text(encoding="utf-8")
    assert text == page(load(tmp_path))
    for heading in re.findall(r"^## (.*)$", text, flags=re.M):
        assert heading
    assert (
        "| ResNet-20 | 100 | 2 | 300 | 3.00 | 2.70 | 3.30 | 2.40 | 1.0 % | 1.90 of 2 threads |"
        in text
    )
    assert "| checkpoints | 64 | 10 ms, 1.0 % |" in text
    assert "| W&B offline: records (if asked for) | 64 |" in text
    assert "| 1202 | 8 | 1 | out of memory | - |" in text
    assert "| plain-20 | 600 us | 10 ms | 3.0 s | 30 s | 45 s | yes |" in text  # the H200
    assert "| plain-20 | 600 us | 10 ms | 3.0 s | 30 s |\n" in text  # a CPU has no target
    losses = "| cifar10_resnet20 | losses | compiled | bf16 | 1.50e-07 | 0.0500 | 0.500 times |"
    assert f"{losses} passed |" in text
    assert "| the loader alone | - | 1 | 150 |" in text
    assert "- ResNet-18: 20 iterations of 16 on 50 photographs; loss 6.90 in the beginning" in text
    assert "`parity_cpu.json`" in text
    assert "unheard_of" not in text  # other commands keep their measurements there, too
    assert "- a note" in text
    widths = {
        tuple(line.count("|") for line in block.splitlines())
        for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    }
    assert all(len(set(counts)) == 1 for counts in widths)


def test_the_largest_loss_is_named_from_the_numbers() -> None:
    (row,) = limit().rows
    assert where_lost(row) == (
        "ResNet-56: most is lost in batch-norm, ReLU, addition, 45 % of the time, 9.0 times its "
        "least (convolutions 50 %; waiting for the host 5.0 %)."
    )
    idle = {"on": "waiting for the host", "share": 0.5, "least_share": 0.0}
    said = where_lost(row | {"spent": [row["spent"][0], idle]})
    assert said.startswith(
        "ResNet-56: most is lost in waiting for the host, 50 % of the time, none"
    )


def test_growth_is_drawn_where_one_thing_changes() -> None:
    by_depth, by_batch = lines([growth()], BY_DEPTH), lines([growth()], BY_BATCH)
    assert [line.label(True) for line in by_depth] == ["batch 8, 2 CPU cores, a CPU"]
    assert [row["depth"] for row in by_depth[0].points] == [20, 56, 110]
    assert [line.label(False) for line in by_batch] == ["ResNet-20"]


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    (path,) = save(tmp_path / "none", tmp_path)
    assert "Nothing is measured yet" in path.read_text(encoding="utf-8")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "training_cpu.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="training_cpu.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (significant(0.01234), "0.012"),
        (significant(9.96), "10"),
        (significant(1234), "1,200"),
        (significant(0), "0"),
        (significant(2.0, 3), "2.00"),
        (percent(0.0123), "1.2 %"),
        (seconds(3.21e-5), "32 us"),
        (seconds(0.0321), "32 ms"),
        (seconds(1.44), "1.4 s"),
        (seconds(125), "2 min 05 s"),
        (seconds(11_400), "3 h 10 min"),
        (amount(4.3e12, "B/s"), "4.3 TB/s"),
        (amount(12, "B"), "12 B"),
    ],
)
def test_numbers_are_said_as_people_say_them(said: str, words: str) -> None:
    assert said == words


def test_speed_page_agrees_with_the_measurements() -> None:
    written = (REPO / "docs" / "SPEED.md").read_text(encoding="utf-8")
    found = load(REPO / "results" / "bench")
    assert written == page(found), "python -m benchmarks.page"
    if any(each.part == "growth" for each in found):
        assert (REPO / "docs" / "figures" / "growth.png").exists()


def test_no_measurement_names_a_place() -> None:
    for path in (REPO / "results" / "bench").glob("*.json"):
        assert not re.search(r"/(home|root|work|tmp|Users)/", path.read_text(encoding="utf-8"))


def test_the_page_needs_no_torch() -> None:
    code = "import sys, benchmarks.page; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
