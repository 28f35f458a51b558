"""Shared by all tests: torch on few threads, so that tests side by side do not starve."""

import gc
import os
import runpy
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest

from resnet_repro import paths

# A shell that starts a command in the background has it ignore Ctrl-C, and so all it starts: the
# tests of what Ctrl-C does need it back.
if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test pulls the plug. What is forced to the disk, and when: tests/test_faults.py.
os.fsync = lambda _: None


def pytest_collection_finish():
    """Collecting garbage, as after each run, need not look at all that was imported."""
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture
def real_cifar10():
    """The folder of the real data set; where there is none the test is skipped."""
    root = paths.data(paths.AUTO)
    if not (root / "cifar10.npz").exists():
        pytest.skip("CIFAR-10 is not here; `make data` gets it")
    return root


@pytest.fixture
def hostile(tmp_path):
    """An object that makes the folder ``canary`` where its pickle is loaded."""

    class Hostile:
        canary = tmp_path / "canary"

        def __reduce__(self):
            return os.mkdir, (str(self.canary),)

    return Hostile()


@pytest.fixture(scope="module")
def few_images():
    """Runs on synthetic images in this process have as few as those in processes of their own."""
    import ranks

    with pytest.MonkeyPatch.context() as patch:
        ranks.show_few(patch)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of small photographs in three classes; crops of pictures are small, too.

    10-crop and several scales keep the paper's sizes.
    """
    import pictures

    root = tmp_path_factory.mktemp("pictures")
    pictures.write_folder(root, size=(80, 70))
    with pytest.MonkeyPatch.context() as patch:
        pictures.shrink(patch)
        yield root


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory):
    """A folder with the zip of a Tiny ImageNet of three classes, which is all that is expected."""
    import tiny_files
    from resnet_repro.data import tiny_imagenet

    root = tmp_path_factory.mktemp("tiny")
    tiny_files.write_zip(root, tiny_files.fake_files(64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_imagenet, "SHAPE", tiny_files.LARGER)
        yield root


@pytest.fixture
def call(monkeypatch):
    """Call the ``main`` of a command with words, in this process; return its exit code."""

    def call(main, *args):
        monkeypatch.setattr(sys, "argv", ["command.py", *map(str, args)])
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return call


@pytest.fixture
def run_script(monkeypatch):
    """Call ``experiments/NAME.py`` with words, in this process."""

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        runpy.run_path(str(paths.REPOSITORY / "experiments" / f"{name}.py"), run_name="__main__")

    return run


@pytest.fixture
def break_as(tmp_path, monkeypatch):
    """Put a stand-in in the place of wandb; the word it gets says what goes wrong."""
    place = tmp_path / "packages"
    place.mkdir()
    shutil.copy(Path(__file__).with_name("fake_wandb.py"), place / "wandb.py")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PYTHONPATH", str(place), prepend=os.pathsep)
    monkeypatch.setenv("FAKE_WANDB", "nothing")
    return lambda how: monkeypatch.setenv("FAKE_WANDB", how)


@pytest.fixture
def coarse_figures(monkeypatch):
    """PNGs of a tenth of the resolution, drawn in less time."""
    from resnet_repro.analysis import style

    monkeypatch.setattr(style, "DPI", 20)
