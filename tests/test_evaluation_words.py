"""What ``resnet_repro.evaluate`` and ``resnet_repro.export`` refuse, and how they say it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from resnet_repro import export
from test_evaluation_commands import refused
from test_models_formats import TheirNet


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("protocl=10-crop",), "unknown option 'protocl'; did you mean 'protocol'?"),
        (
            ("weights=a.pt", "protocol=5-crop", "format=ours"),
            "protocol=5-crop: must be one of 1-cr",
        ),
        (("weights=none.pt", "format=akamaster"), "weights=none.pt: must be an existing file"),
        (("weights=/dev/null", "format=ours"), "weights=/dev/null: must be an existing file\n"),
        (("weights=none.pt",), "format is not set; must be one of ours, akamaster, torchvision"),
        (("weights=a", "format=caffe"), "format=caffe: must be one of ours, akamaster"),
        (("run=nowhere",), "run=nowhere: must be an existing folder"),
        (("run=.", "format=ours"), "format=ours: only with weights="),
        (("run=.", "weights=a", "format=ours"), "give either weights=FILE"),
        (("weights=a", "format=ours", "bn=precise"), "bn=precise: only with run="),
        (("run=.,.",), "run=.,.: names one run twice"),
        (("run=.", "run=."), "run is given twice"),
        (("run=.", "batch_size=-1"), "batch_size=-1: must be an integer >= 0"),
        (("run=.", "batch_size=1e3"), "batch_size=1e3: must be an integer >= 0"),
        (("run=.", "trainer.device=tpu"), "trainer.device=tpu: must be one of auto, cpu, cuda"),
        (("run=.", "data.nam=cifar10"), "unknown option 'data.nam'; did you mean 'data.name'?"),
        (("run=.", "data=cifar11"), "data.name=cifar11: must be one of auto, cifar10"),
        (("run=.", "data=cifar10", "data.name=cifar10"), "data.name is given twice"),
        (("run=.", "data.on_corrupt=replace"), "data.on_corrupt=replace: must be one of"),
        (("run=.", "trainer=cpu"), "unknown option 'trainer'"),
        (("run=.", "name=../../x"), "name=../../x: must be"),
        (("run=.", "weights"), "could not read 'weights': must be key=value"),
        (
            ("run=.", "weights_key=ema"),
            "weights_key=ema: only with format=akamaster or torchvision",
        ),
        (("run=.", "stride_in=1x1"), "stride_in=1x1: only with format=torchvision"),
        (("weights=a", "format=torchvision", "stride_in=7x7"), "stride_in=7x7: must be one of 1x1"),
    ],
)
def test_bad_words_are_refused_in_one_line(words, message):
    code, said = refused(*words)
    assert (code, message in said) == (2, True), said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run=.",), "out is not set"),
        (("out=a.pt",), "run is not set"),
        (("run=nowhere", "out=a.pt"), "run=nowhere: must be an existing folder"),
        (("run=.", "out=nowhere/a.pt"), "out=nowhere/a.pt: must be a file in an existing folder"),
        (("run=.", "out=a.safetensors"), "must end in .safetensors exactly if"),
        (("run=.", "out=a.pt", "format=onnx"), "format=onnx: must be one of state_dict, safet"),
        (("run=.,..", "out=a.pt"), "out=a.pt: must be an existing folder where there are several"),
        (("run=.,.", "out=."), "run=.,.: two runs of the same name"),
        (("run=.", "out=/dev/null"), "out=/dev/null: must be a file in an existing folder"),
    ],
)
def test_bad_words_for_export_are_refused_in_one_line(words, message):
    code, said = refused(*words, command=export)
    assert (code, message in said) == (2, True), said


def test_only_regular_files_and_free_names_are_written(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "pipe.pt")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "b_a_c.pt")
    run = tmp_path / "a" / "b" / "c"
    run.mkdir(parents=True)
    for out in ("pipe.pt", "link.pt", "out"):
        code, said = refused(f"run={run}", f"out={tmp_path / out}", command=export)
        assert (code, "must be a file in an existing folder" in said) == (2, True)
    assert (tmp_path / "pipe.pt").is_fifo()


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.pt").touch()
    code, said = refused("weights=~/a.pt", "format=ours")
    assert (code, "a.pt: not a weights file" in said) == (4, True), said


def test_a_comma_in_a_path_is_explained(tmp_path):
    (tmp_path / "a,b.pt").touch()
    code, said = refused(f"weights={tmp_path}/a,b.pt", "format=ours")
    assert (code, r"a comma in a path is written \," in said) == (2, True)


@pytest.mark.parametrize("module", ["evaluate", "export"])
@pytest.mark.parametrize("words", [("--help",), ("colour=red",)])
def test_help_and_bad_words_answer_at_once(module, words):
    """Without torch: seconds of waiting for a misspelt word are what users remember."""
    code = (
        f"import sys; from resnet_repro import {module}\n"
        f"sys.argv = ['x', *{words!r}]\n"
        "try:\n"
        f"    {module}.main()\n"
        "finally:\n"
        "    sys.exit(9) if 'torch' in sys.modules else None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == (0 if words == ("--help",) else 2), done.stderr
    if words == ("--help",):
        assert "run " in done.stdout
        assert "Exit codes" in done.stdout


def test_a_hostile_file_ends_the_command_with_one_line(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    torch.save({"state_dict": {}, "x": Hostile()}, tmp_path / "a.th")
    words = (f"weights={tmp_path / 'a.th'}", "format=akamaster", f"results_dir={tmp_path / 'r'}")
    code, said = refused(*words)
    assert (code, "posix.system" in said) == (4, True)
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "r").exists()


def test_nets_of_another_number_of_classes_are_refused(tmp_path):
    net = TheirNet(1)
    net.linear = nn.Linear(64, 100)
    torch.save(net.state_dict(), tmp_path / "hundred.th")
    words = (f"weights={tmp_path / 'hundred.th'}", "format=akamaster", "data.name=synthetic")
    code, said = refused(*words, f"results_dir={tmp_path / 'r'}")
    assert code == 2
    assert "hundred.th: its net has 100 classes, synthetic has 10" in said
    assert not (tmp_path / "r").exists()


def test_scores_that_overflow_are_no_result(tmp_path):
    net = TheirNet(1).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1e30)
    torch.save(net.state_dict(), tmp_path / "wild.th")
    words = (f"weights={tmp_path / 'wild.th'}", "format=akamaster", "data.name=synthetic")
    code, said = refused(*words, f"results_dir={tmp_path / 'r'}")
    assert code == 4
    assert "scores are not finite" in said
