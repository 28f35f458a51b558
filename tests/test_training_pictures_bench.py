"""The measurement of the full-size path measures what a run does, on any photographs."""

import pytest

from benchmarks import pictures
from benchmarks.record import Scope
from pictures import encoded, photograph
from small_crops import CROP, shrink

WORDS = ("trainer.threads=1", "trainer.loader_workers=1", "trainer.device=cpu")


@pytest.fixture
def small(monkeypatch):
    shrink(monkeypatch)
    monkeypatch.setattr(pictures, "CROP", CROP)
    monkeypatch.setattr(pictures, "BATCH", {"cpu": 4, "cuda": 4})
    monkeypatch.setattr(pictures, "MADE_UP", 2)
    monkeypatch.setattr(pictures, "SIZE", (90, 80))


@pytest.mark.usefixtures("small")
def test_every_part_of_the_path_has_its_speed(tmp_path, monkeypatch):
    for number in range(3):  # fewer than a batch
        (tmp_path / f"{number}.JPEG").write_bytes(encoded(photograph(90, 80, seed=number)))
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path))
    found = pictures.measure(Scope(("imagenet_plain18",), rounds=1, iterations=2), WORDS)
    assert found["photographs"] == {"count": 3, "kind": "photographs"}
    speeds = {(row["what"], row["cores"]): row["images_per_second"] for row in found["rows"]}
    assert list(speeds) == [
        ("decoding, this project", 1),
        ("decoding, torchvision's recipe", 1),
        ("the loader alone, 1 process", None),
        ("the loader alone, in the training process", 1),
        ("updates alone, on the CPU", 1),
        ("a run, its training", None),
    ]
    assert all(speed > 0 for speed in speeds.values())
    (run,) = found["runs"]
    assert (run["net"], run["iterations"], run["batch_size"]) == ("plain-18", 2, 4)
    assert (run["test_images"], run["left_out"]) == (3, {})
    assert 0 < run["loss_of_the_last"] < 50


@pytest.mark.usefixtures("small")
def test_without_photographs_they_are_made_up_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNET_REPRO_DATA", str(tmp_path / "nothing"))
    paths, kind = pictures.find((), tmp_path / "made-up")
    assert kind == "made-up pictures"
    assert [path.name for path in paths] == ["000.JPEG", "001.JPEG"]
    assert pictures.decode(paths, 1)["pictures"] == 2
