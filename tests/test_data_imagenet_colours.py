"""Mean picture, principal colours, what the net sees; and the decoding benchmark."""

import numpy as np
import pytest
import torch

from benchmarks.pictures import decode
from pictures import SAMPLE, encoded, photograph, write_folder
from resnet_repro.data import DataError, colours
from resnet_repro.data.folder import load_index
from resnet_repro.data.jpeg import train_crop
from resnet_repro.data.order import picture_draw
from resnet_repro.data.streamed import PicturePreparation


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root, classes=2, train=4, val=1)
    return root


def test_statistics_are_those_of_the_crops(folder, tmp_path, monkeypatch):
    index = load_index(folder / "train")
    found = colours.load_statistics(index, tmp_path)
    files = [index.path(row).read_bytes() for row in range(len(index))]
    crops = [train_crop(f, "x", picture_draw(0, 0, row)) / 255 for row, f in enumerate(files)]
    pixels = np.concatenate(crops).reshape(-1, 3)
    assert found.pictures == len(index) == 8
    assert np.allclose(found.mean, np.mean(crops, axis=0), atol=1e-12)
    rebuilt = found.colours @ np.diag(found.deviations**2) @ found.colours.T
    assert np.allclose(rebuilt, np.cov(pixels.T, bias=True), atol=1e-12)
    assert (np.diff(found.deviations) <= 0).all()
    monkeypatch.setattr(colours, "_CHUNK", 3)  # in several threads
    two = colours.load_statistics(index, tmp_path / "other")
    assert two.digest == found.digest
    assert np.array_equal(two.colours, found.colours)


def test_statistics_are_kept_for_the_same_pictures_only(folder, tmp_path, monkeypatch):
    index = load_index(folder / "train")
    monkeypatch.setattr(colours, "SAMPLE", 3)
    first = colours.load_statistics(index, tmp_path)
    assert first.pictures == 3
    calls: list[int] = []
    measure = colours._measure

    def spy(*args):
        calls.append(1)
        return measure(*args)

    monkeypatch.setattr(colours, "_measure", spy)
    again = colours.load_statistics(index, tmp_path)
    assert (again.digest, calls) == (first.digest, [])
    val = load_index(folder / "val")
    assert colours.load_statistics(val, tmp_path).digest != first.digest
    kept = tmp_path / ".colours-3.npz"
    kept.write_bytes(kept.read_bytes()[:-40])
    assert colours.load_statistics(index, tmp_path).digest == first.digest
    assert len(calls) == 2


def test_statistics_name_a_corrupt_picture(tmp_path):
    write_folder(tmp_path, classes=1, train=3)
    bad = tmp_path / "train" / "n00000000" / "n00000000_1.JPEG"
    bad.write_bytes(b"junk")
    index = load_index(tmp_path / "train")
    with pytest.raises(DataError, match="n00000000_1.JPEG"):
        colours.load_statistics(index, tmp_path)
    found = colours.load_statistics(index, tmp_path, skip_corrupt=True)
    assert found.pictures == 2


def fake_statistics():
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    mean = rng.uniform(0.3, 0.6, (224, 224, 3))
    return colours.ColourStatistics(mean, np.array([0.4, 0.1, 0.02]), axes, 1, "")


@pytest.mark.parametrize("mean", ["pixel", "channel"])
def test_preparation_is_the_formula(mean):
    measured = fake_statistics()
    prepare = PicturePreparation(measured, torch.device("cpu"), mean)
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    alphas = rng.normal(0, 0.1, (3, 3)).astype(np.float32)
    subtracted = measured.mean if mean == "pixel" else measured.mean.mean(axis=(0, 1))
    centred = images / 255 - subtracted
    noise = np.stack([measured.colours @ (a * measured.deviations) for a in alphas])
    batch = prepare.train(torch.from_numpy(images), torch.from_numpy(alphas))
    expected = centred + noise[:, None, None, :]
    assert np.allclose(batch.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    test = prepare.test(torch.from_numpy(images))
    assert np.allclose(test.permute(0, 2, 3, 1).numpy(), centred, atol=1e-6)


def test_pictures_of_other_sizes_lose_the_mean_colour():
    measured = fake_statistics()
    images = np.random.default_rng(3).integers(0, 256, (1, 224, 300, 3), dtype=np.uint8)
    test = PicturePreparation(measured, torch.device("cpu")).test(torch.from_numpy(images))
    expected = images / 255 - measured.mean.mean(axis=(0, 1))
    assert np.allclose(test.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_benchmark_on_made_photographs(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path, size in zip(paths, [(500, 375), (375, 500), (1300, 1000)], strict=True):
        path.write_bytes(encoded(photograph(*size)))
    result = decode(paths, rounds=2)
    assert result["pictures"] == 3
    assert result["same_scale_max"] <= 2
    assert result["reduced"] == pytest.approx(1 / 3, abs=1e-3)
    assert result["speedup"] == pytest.approx(result["ours"] / result["reference"], rel=0.01)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the shared photographs are not here")
def test_real_photographs_are_decoded_faster_and_alike():
    result = decode(sorted(SAMPLE.glob("*.JPEG")), rounds=2)
    assert result["pictures"] == 50
    assert result["speedup"] >= 1.5
    assert result["same_scale_max"] <= 2
    assert result["mean_difference"] < 0.1
    assert result["worst_picture_mean"] < 5


def test_sample_statistics_settle_in_a_read_only_place(folder, tmp_path):
    (tmp_path / "file").write_text("")
    index = load_index(folder / "train")
    assert colours.load_statistics(index, tmp_path / "file").pictures == 8
