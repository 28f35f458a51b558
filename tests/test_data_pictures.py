"""Full-size pictures: decoding, augmentation, mean picture, colours, and the decoding benchmark."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import v2

from benchmarks.pictures import decode
from pictures import SAMPLE, encoded, photograph, write_folder
from refusals import refused
from resnet_repro.data import colours, jpeg, order
from resnet_repro.data.folder import load_index
from resnet_repro.data.jpeg import PictureError, centre_crop, pixels, train_crop
from resnet_repro.data.order import ALPHA_STD, Draw, picture_draw
from resnet_repro.data.streamed import PicturePreparation


def by_hand(encoded_, draw):
    image = Image.open(io.BytesIO(encoded_)).convert("RGB")
    image = image.resize(jpeg.resized(image.size, draw.side), Image.Resampling.BILINEAR)
    left, top = draw.x % (image.width - 223), draw.y % (image.height - 223)
    crop = np.array(image)[top : top + 224, left : left + 224]
    return crop[:, ::-1] if draw.flip else crop


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (256, 256), (120, 90), (900, 230)])
def test_crop_and_resize_in_one_is_resize_then_crop(size):
    file = encoded(photograph(*size))
    for index in range(8):
        draw = picture_draw(0, 0, index)
        crop = train_crop(file, "x", draw)
        assert crop.shape == (224, 224, 3)
        assert crop.dtype == np.uint8
        gap = np.abs(crop.astype(int) - by_hand(file, draw))
        assert gap.max() <= 2
        assert gap.mean() < 0.3
        mirrored = train_crop(file, "x", draw._replace(flip=not draw.flip))
        assert np.array_equal(mirrored[:, ::-1], crop)


@pytest.fixture
def resizes(monkeypatch):
    """The sizes before and after each resizing by Pillow."""
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    resize = Image.Image.resize

    def spy(image, size, *args, **options):
        found.append((image.size, size))
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    return found


@pytest.mark.parametrize(
    ("size", "side", "decoded"),
    [
        ((1200, 900), 300, (600, 450)),  # a quarter would not cover
        ((1200, 900), 450, (600, 450)),
        ((1200, 900), 451, (1200, 900)),
        ((2400, 2000), 250, (300, 250)),
        ((2000, 2400), 256, (500, 600)),
    ],
)
def test_smallest_jpeg_scale_that_covers(resizes, size, side, decoded):
    file = encoded(photograph(*size))
    draw = Draw(side, 3, 5, False, (0, 0, 0))
    resizes.clear()
    crop = train_crop(file, "x", draw)
    assert [before for before, _ in resizes] == [decoded]
    assert np.abs(crop.astype(int) - by_hand(file, draw)).mean() < 4


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 257), (640, 480)])
def test_centre_crop_is_torchvisions(size):
    image = photograph(*size)
    theirs = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(image)
    ours = centre_crop(encoded(image, "PNG"), "x")
    assert np.abs(ours.astype(int) - np.asarray(theirs)).max() <= 2


@pytest.mark.parametrize("side", [224, 256, 384, 480, 640])
def test_scaled_has_the_shorter_side_and_the_aspect(side):
    longer = side * 500 // 333
    assert jpeg.scaled(encoded(photograph(500, 333)), "x", side).shape == (side, longer, 3)
    assert jpeg.scaled(encoded(photograph(333, 500)), "x", side).shape == (longer, side, 3)


def test_every_kind_of_file_becomes_rgb():
    image = photograph(60, 40)
    rgb = np.asarray(image)
    assert np.array_equal(pixels(encoded(image, "PNG"), "named.JPEG"), rgb)
    grey = pixels(encoded(image.convert("L"), "PNG"), "x")
    assert np.array_equal(grey, np.asarray(image.convert("L").convert("RGB")))
    crop = centre_crop(encoded(image.convert("L")), "x")
    assert crop.std() > 5
    assert np.array_equal(crop[..., 0], crop[..., 2])
    alpha = image.convert("RGBA")
    assert np.array_equal(pixels(encoded(alpha, "PNG"), "x"), rgb)
    palette = image.convert("P")
    assert np.array_equal(pixels(encoded(palette, "PNG"), "x"), np.asarray(palette.convert("RGB")))
    file = encoded(image.convert("CMYK"), quality=95)
    cmyk = pixels(file, "x")
    as_rgb = centre_crop(encoded(Image.fromarray(cmyk), "PNG"), "x")
    assert np.array_equal(centre_crop(file, "x"), as_rgb)  # to RGB first, then resized
    assert cmyk.shape == (40, 60, 3)
    assert np.abs(cmyk.astype(int) - rgb).mean() < 12  # not inverted, channels in order


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not a JPEG"),
        (encoded(photograph(60, 40))[:300], "x.JPEG"),
        (encoded(photograph(200, 200))[:4000], "truncated"),
        (encoded(photograph(60, 40), "GIF"), "not a JPEG"),
        (encoded(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"), "8 bits"),
    ],
)
def test_undecodable_files_are_named(file, message):
    for read in (pixels, centre_crop):
        assert message in refused(read, file, "x.JPEG", match="x.JPEG", kind=PictureError)


def test_draws_belong_to_seed_epoch_and_index():
    first = picture_draw(3, 5, 7)
    assert first == picture_draw(3, 5, 7)
    # Pinned: a change would silently change every run.
    assert (first.side, first.flip) == (446, False)
    assert (first.y, first.x) == (11251151884155195840, 3698979466469766038)
    others = [picture_draw(4, 5, 7), picture_draw(3, 6, 7), picture_draw(3, 5, 8)]
    assert len({first.y, *(other.y for other in others)}) == 4
    assert first.y not in order.raw(3, 5, order.CROP_Y, 100)


def test_draws_reach_every_place_and_side_and_their_noise_is_normal():
    draws = [picture_draw(0, 0, index) for index in range(4000)]
    assert {draw.side for draw in draws} == set(range(256, 481))
    assert {draw.y % 33 for draw in draws} == set(range(33))
    assert {draw.x % 33 for draw in draws} == set(range(33))
    assert 0.46 < np.mean([draw.flip for draw in draws]) < 0.54
    alphas = np.array([draw.alphas for draw in draws])
    for column in alphas.T:
        assert stats.kstest(column / ALPHA_STD, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(alphas.T) - np.eye(3)).max() < 0.06


def test_memory_is_bounded_whatever_the_shape(resizes):
    """A picture of 20,000 x 10 is 512,000 x 256 once resized; crops compute only themselves."""
    file = encoded(Image.new("RGB", (20_000, 10)), "PNG")
    message = r"20000x10 .* 512000x256 .* more than 16,777,216"
    refused(jpeg.scaled, file, "strip", 256, match=message, kind=PictureError)
    assert centre_crop(file, "strip").shape == (224, 224, 3)
    assert train_crop(file, "strip", picture_draw(0, 0, 0)).shape == (224, 224, 3)
    assert [after for _, after in resizes] == [(224, 224), (224, 224)]


def test_a_file_far_too_large_is_not_read(tmp_path):
    path = tmp_path / "x.jpg"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)  # holds no blocks
    message = r"x\.jpg: more than 67,108,864 bytes"
    refused(jpeg.read_picture, path, match=message, kind=PictureError)


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
    (tmp_path / "file").write_text("")  # where nothing can be kept
    assert colours.load_statistics(index, tmp_path / "file").digest == found.digest


def test_statistics_are_kept_for_the_same_pictures_only(folder, tmp_path, monkeypatch, capsys):
    def measured() -> int:
        return capsys.readouterr().err.count("measuring mean and principal colours")

    index = load_index(folder / "train")
    monkeypatch.setattr(colours, "SAMPLE", 3)
    first = colours.load_statistics(index, tmp_path)
    assert (first.pictures, measured()) == (3, 1)
    again = colours.load_statistics(index, tmp_path)
    assert (again.digest, measured()) == (first.digest, 0)
    val = load_index(folder / "val")
    assert colours.load_statistics(val, tmp_path).digest != first.digest
    kept = tmp_path / ".colours-3.npz"
    kept.write_bytes(kept.read_bytes()[:-40])
    assert colours.load_statistics(index, tmp_path).digest == first.digest
    assert measured() == 2
    os.utime(index.path(0), ns=(0, 1))  # as if replaced by another file of its size
    colours.load_statistics(load_index(folder / "train"), tmp_path)
    assert measured() == 1
    assert list(tmp_path.glob(".colours-*")) == [kept]


def test_statistics_name_a_corrupt_picture(tmp_path):
    write_folder(tmp_path, classes=1, train=3)
    bad = tmp_path / "train" / "n00000000" / "n00000000_1.JPEG"
    bad.write_bytes(b"junk")
    index = load_index(tmp_path / "train")
    refused(colours.load_statistics, index, tmp_path, match="_1.JPEG.* data.on_corrupt=skip")
    assert colours.load_statistics(index, tmp_path, skip_corrupt=True).pictures == 2


@pytest.mark.parametrize("mean", ["pixel", "channel"])
def test_preparation_is_the_formula(mean):
    rng = np.random.default_rng(1)
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    picture = rng.uniform(0.3, 0.6, (224, 224, 3))
    measured = colours.ColourStatistics(picture, np.array([0.4, 0.1, 0.02]), axes, 1, "")
    prepare = PicturePreparation(measured, torch.device("cpu"), mean)
    images = rng.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    alphas = rng.normal(0, 0.1, (3, 3)).astype(np.float32)
    subtracted = measured.mean if mean == "pixel" else measured.mean.mean(axis=(0, 1))
    centred = images / 255 - subtracted
    noise = np.stack([measured.colours @ (a * measured.deviations) for a in alphas])
    batch = prepare.train(torch.from_numpy(images), torch.from_numpy(alphas))
    expected = centred + noise[:, None, None, :]
    assert np.allclose(batch.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the shared photographs are not here")
def test_real_photographs_are_decoded_alike():
    result = decode(sorted(SAMPLE.glob("*.JPEG")), rounds=2)
    assert result["pictures"] == 50
    assert result["same_scale_max"] <= 2
    assert result["mean_difference"] < 0.1
    assert result["worst_picture_mean"] < 5
