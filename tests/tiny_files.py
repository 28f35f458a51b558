"""A Tiny ImageNet of three classes, in every form in which it comes."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pictures import encoded, photograph
from resnet_repro.data.tiny_imagenet import Shape

SHAPE = Shape(
    classes=3, train_per_class=11, test_per_class=2, side=16, train_files="", test_files=""
)
LARGER = SHAPE._replace(side=64)  # that nets of the ImageNet family take
FEW = (
    "profile=smoke", "recipe.batch_size=3", "recipe.max_iters=2", "recipe.milestones=[1]",
    "evaluation.every_iters=2", "evaluation.clean_train_images=1", "probes.signals=false",
    "probes.response_images=0", "trainer.checkpoint_every_iters=2", "trainer.threads=1",
)  # fmt: skip
WNIDS = ["n02000002", "n01000001", "n03000003"]  # listed unsorted, as in the real file


def fake_files(side=SHAPE.side):
    files = {"wnids.txt": "\n".join(WNIDS).encode(), "words.txt": b"n01000001\tx"}
    for label, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"not wanted"
        for number in range(SHAPE.train_per_class):
            image = photograph(side, side, seed=100 * label + number)
            image = image.convert("L") if number == 3 else image
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = encoded(image)
    rows = []
    for number in range(6):
        files[f"val/images/val_{number}.JPEG"] = encoded(photograph(side, side, seed=900 + number))
        rows.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t0\t9\t9")
    files["val/val_annotations.txt"] = ("\n".join(rows) + "\n").encode()
    files["test/images/test_0.JPEG"] = b"not wanted"
    return files


def write_folder(root, files):
    for name, content in files.items():
        path = root / "tiny-imagenet-200" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root / "tiny-imagenet-200"


def write_archive(root, files, form):
    with tempfile.TemporaryDirectory() as made:
        folder = write_folder(Path(made), files)
        return Path(shutil.make_archive(str(root / folder.name), form, made, folder.name))


write_zip = partial(write_archive, form="zip")
write_tar = partial(write_archive, form="xztar")
Writer = Callable[[Path, dict[str, bytes]], Path]
WRITERS: list[Writer] = [write_folder, write_zip, write_tar]
