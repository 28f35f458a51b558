"""``resnet_repro.evaluate``, ``export`` and ``responses`` as a user types them."""

import hashlib
import io
import json
import math
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from ranks import FEW_IMAGES, UNSEEN, StopAt, do, small_job
from resnet_repro import api, data, evaluate, export, paths, responses
from resnet_repro.analysis.logged_run import load_run
from resnet_repro.config import TrainerConfig
from resnet_repro.data import Arrays, DataError
from resnet_repro.evaluation.protocols import Geometry, scorer, views_of
from resnet_repro.evaluation.session import Session
from resnet_repro.evaluation.subjects import from_file, from_run
from resnet_repro.evaluation.weights import WeightsError
from resnet_repro.runs.folder import RunFolder
from resnet_repro.training import device
from test_models_formats import TheirNet, randomise

pytestmark = pytest.mark.usefixtures("few_images")
TRAINED, TESTED = FEW_IMAGES
MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]


def ask(command, *args):
    """Run a command in this process, where torch is already loaded: exit code, stdout, stderr."""
    if any(word.startswith("results_dir=") for word in args):
        args = (*args, "trainer.threads=1")  # tests run side by side
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [command.__name__, *args])
        try:
            command.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def done(command, *args):
    code, out, err = ask(command, *args)
    assert code == 0, err
    return out


def refused(message, *args, code=2, command=evaluate):
    """Run a command that must refuse with an exit code, in one line that holds a message."""
    found, out, err = ask(command, *args)
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err
    assert found == code, err
    return err


def results(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def counted(folder, *args):
    """Evaluate into a folder where nothing else is; the result."""
    done(evaluate, *args, f"results_dir={folder}")
    (found,) = results(folder).values()
    return found


@pytest.fixture(scope="module")
def arrays():
    return data.load("synthetic", Path())


def theirs(images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return (pixels.float() / 255 - MEAN) / STD


@pytest.fixture(scope="module")
def akamaster(tmp_path_factory, arrays):
    """A file as akamaster publishes them, of a net that does not always say the same."""
    torch.manual_seed(0)  # else what ran before decides the net, and by chance two counts are equal
    net = randomise(TheirNet(1))
    with torch.no_grad():  # centre the scores, so that all classes are said
        scores = net(theirs(arrays.train_images))
        net.linear.bias -= scores.mean(0)
    path = tmp_path_factory.mktemp("theirs") / "resnet8-12fca82f.th"
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    content = {"state_dict": state, "best_prec1": 10.0}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path, net


def test_akamaster_weights_count_exactly_as_their_own_net(akamaster, arrays, tmp_path):
    path, net = akamaster
    args = (f"weights={path}", "format=akamaster", "data.name=synthetic", "batch_size=70")
    args += ("name=null", "weights_key=null")  # no name, not one of four letters
    out = done(evaluate, *args, f"results_dir={tmp_path / 'results'}")
    images = torch.from_numpy(arrays.test_images)
    labels = torch.from_numpy(arrays.test_labels).long()
    with torch.no_grad():
        scores = net(theirs(arrays.test_images))
        unscaled = net(images.permute(0, 3, 1, 2).float() / 255)
    assert len(scores.argmax(1).unique()) >= 5
    wrong = int((scores.argmax(1) != labels).sum())
    assert wrong != int((unscaled.argmax(1) != labels).sum())
    (found,) = results(tmp_path / "results").values()
    assert found["name"] == "resnet8-12fca82f"
    assert (found["wrong1"], found["num_samples"]) == (wrong, TESTED)
    assert found["top1_err"] == pytest.approx(100 * wrong / TESTED)
    top5 = (scores.topk(5).indices == labels[:, None]).any(1)
    assert found["wrong5"] == TESTED - int(top5.sum())
    assert found["loss"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
    assert (found["protocol"], found["bn"], found["kind"]) == ("1-crop", "running", "test")
    assert found["data"] == {"name": "synthetic", "digests": arrays.digests}
    assert found["precision"] == "fp32"
    assert found["versions"]["torch"]
    assert found["hardware"]["label"]
    (model,) = found["models"]
    assert model["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (model["file"], model["format"]) == ("resnet8-12fca82f.th", "akamaster")
    assert model["net"]["label"] == "ResNet-8 (zero pad both)"
    assert model["normalisation"] == "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    assert str(tmp_path) not in json.dumps(found)
    header, _, line = out.splitlines()
    cells = dict(zip(*([c.strip() for c in row.split("|")] for row in (header, line)), strict=True))
    assert cells["top-1 err %"] == f"{100 * wrong / TESTED:.2f}"
    assert cells["images"] == str(TESTED)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    brief = ("recipe.max_iters=6", "recipe.milestones=[4]", *UNSEEN, "name=small")
    brief += ("evaluation.clean_train_images=0",)
    jobs = [small_job(root, *brief, f"seed={seed}") for seed in (0, 1)]
    assert [do(job) for job in jobs] == ["finished", "finished"]
    return [job.folder for job in jobs]


def ours_sees(arrays):
    mean = torch.from_numpy(arrays.train_images).double().mean(0) / 255
    return (torch.from_numpy(arrays.test_images).double() / 255 - mean).permute(0, 3, 1, 2).float()


def last(folder, kind):
    return [record for record in folder.metrics() if record["kind"] == kind][-1]


def assert_same(found, recorded):
    for key in ("kind", "top1_err", "top5_err", "num_samples", "protocol", "bn"):
        assert found[key] == recorded[key], key
    assert found["loss"] == pytest.approx(recorded["loss"], rel=1e-5)


@pytest.mark.parametrize(("split", "kind"), [("test", "test"), ("train", "train_clean")])
def test_a_run_counts_again_as_it_was_recorded(runs, tmp_path, split, kind):
    found = counted(tmp_path, f"run={runs[0].path}", f"split={split}", "batch_size=33")
    assert_same(found, last(runs[0], kind))
    assert found["models"][0]["run"] == "smoke/small/seed0"


def test_a_bf16_run_is_tested_in_fp32_where_bf16_is_slow(runs, tmp_path, monkeypatch):
    """A CPU without bf16 units takes several times as long in bf16 as in fp32."""
    copy = shutil.copytree(runs[0].path, tmp_path / "runs" / "seed0")
    meta = json.loads((copy / "meta.json").read_text(encoding="utf-8"))
    (copy / "meta.json").write_text(json.dumps(meta | {"precision": "bf16"}))
    monkeypatch.setattr(device, "multiplies_bf16", lambda: False)
    for words, expected in (((), "fp32"), (("trainer.precision=bf16",), "bf16")):
        assert counted(tmp_path / expected, f"run={copy}", *words)["precision"] == expected
    monkeypatch.setattr(device, "multiplies_bf16", lambda: True)
    assert device.here("bf16", TrainerConfig()) == "bf16"


def test_precise_bn_is_another_number_stored_as_such(runs, arrays, tmp_path):
    """After 6 updates the running averages are still near their start."""
    found = counted(tmp_path, f"run={runs[0].path}", "bn=precise")
    assert found["bn"] == "precise"
    assert found["name"].endswith("_precise")
    assert found["models"][0]["bn_images"] == TRAINED
    x, labels = ours_sees(arrays), torch.from_numpy(arrays.test_labels).long()
    with torch.no_grad():  # statistics of the test images themselves: nearly the same
        near = F.cross_entropy(from_run(runs[0].path).net.train()(x), labels).item()
    assert found["loss"] == pytest.approx(near, abs=0.01)
    assert abs(last(runs[0], "test")["loss"] - near) > 0.02
    checkpoint = max((runs[0].path / "checkpoints").glob("*.pt"))
    more = ("bn=precise", "format=ours")
    same = counted(tmp_path / "checkpoint", f"weights={checkpoint}", *more)
    assert same["name"] == "small_smoke_seed0_iter6_precise"
    assert same["models"][0]["net"]["label"] == "ResNet-8"
    assert (same["loss"], same["wrong1"]) == (found["loss"], found["wrong1"])
    done(export, f"run={runs[0].path}", f"out={tmp_path / 'net.pt'}")
    on_two = shutil.copytree(runs[0].path, tmp_path / "on" / "two" / "seed0")
    config = (on_two / "config.yaml").read_text(encoding="utf-8")
    (on_two / "config.yaml").write_text(config.replace("devices: 1", "devices: 2"))
    halves = counted(tmp_path / "halves", f"run={on_two}", "bn=precise")
    assert 0 < abs(halves["loss"] - found["loss"]) < 0.01  # variances of half as many images
    message = "bn=precise: only with run=... or a checkpoint in its run folder"
    refused(message, f"weights={tmp_path / 'net.pt'}", *more, f"results_dir={tmp_path}")


def test_exported_weights_count_the_logged_error_to_the_last_image(runs, tmp_path):
    """Several runs into a folder, with a table; the run folders are not needed afterwards."""
    out = tmp_path / "weights"
    out.mkdir()
    both = f"run={runs[0].path},{runs[1].path}"
    (out / "README.md").write_text("# My project")
    message = "its README.md is not a table of weights and would be replaced"
    refused(message, both, f"out={out}", "format=safetensors", command=export)
    (out / "README.md").unlink()
    (out / "other.pt").write_bytes(b"not ours, and in no table")
    output = done(export, both, f"out={out}", "format=safetensors")
    assert f"{out / 'README.md'}\n" in output
    table = (out / "README.md").read_text(encoding="utf-8")
    for seed, run in enumerate(runs):
        path = out / f"small_smoke_seed{seed}.safetensors"
        expected, subject = from_run(run.path), from_file(path, "ours")
        assert (subject.spec, subject.num_classes) == (expected.spec, expected.num_classes)
        for name, value in subject.net.state_dict().items():
            assert torch.equal(value, expected.net.state_dict()[name])
        found = counted(tmp_path / f"{seed}", f"weights={path}", "format=ours")
        logged = last(run, "test")
        assert found["name"] == path.stem
        assert found["wrong1"] == round(logged["top1_err"] * logged["num_samples"] / 100)
        for key in ("top1_err", "top5_err", "num_samples"):
            assert found[key] == logged[key]
        (line,) = [line for line in table.splitlines() if path.name in line]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest in output
        run_key, error = f"smoke/small/seed{seed}", f"{logged['top1_err']:.2f}"
        assert cells[:5] == ["ResNet-8", "synthetic", str(seed), error, str(TESTED)]
        assert cells[5:] == [path.name, digest, f"results/runs/{run_key}"]
        (model,) = found["models"]
        assert (model["run"], model["iter"]) == (run_key, 6)
        assert model["metrics_sha256"] == run.metrics_digest(6)


WEIGHTS = sorted((paths.REPOSITORY / "results" / "weights").glob("*.safetensors"))
each_weights = pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)


@pytest.mark.slow  # half a minute a net of 20 layers
@each_weights
def test_committed_weights_give_the_logged_error(path, tmp_path, real_cifar10):
    found = counted(tmp_path, f"weights={path}", "format=ours", f"data.root={real_cifar10}")
    run = load_run(paths.REPOSITORY / "results" / "runs" / found["models"][0]["run"])
    made = (run.meta["precision"], run.meta["hardware"]["cpu"])
    same = made == (found["precision"], found["hardware"]["cpu"])
    logged = run.metrics[run.metrics["kind"] == "test"].iloc[-1]
    assert found["num_samples"] == logged["num_samples"] == 10_000
    for key in ("top1_err", "top5_err"):  # another processor rounds differently
        assert round(100 * abs(found[key] - logged[key])) <= (0 if same else 10)


@each_weights
def test_committed_weights_are_those_of_the_table_and_of_their_run(path):
    source = from_file(path, "ours").source
    run = load_run(paths.REPOSITORY / "results" / "runs" / source["run"])
    logged = run.metrics[run.metrics["kind"] == "test"].iloc[-1]
    assert source["metrics_sha256"] == RunFolder(run.path).metrics_digest(int(logged["iter"]))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    table = (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"| {logged['top1_err']:.2f} " in next(x for x in table.splitlines() if digest in x)


def test_five_lines_of_python_classify_a_picture_without_the_data(
    runs, arrays, tmp_path, monkeypatch
):
    out = tmp_path / "net.safetensors"
    done(export, f"run={runs[0].path}", f"out={out}", "format=safetensors")
    monkeypatch.setattr(data, "load", pytest.fail)
    net = api.load_net(out)
    with torch.no_grad():
        expected = from_run(runs[0].path).net(ours_sees(arrays)[:20]).softmax(1)
    for pixels, probabilities in zip(arrays.test_images, expected, strict=False):
        found = net.classify(Image.fromarray(pixels), most=10)
        assert [name for name, _ in found[:1]] == [str(int(probabilities.argmax()))]
        for name, probability in found:
            assert probability == pytest.approx(float(probabilities[int(name)]), abs=1e-6)
    assert len(net.classify(Image.new("L", (640, 480)))) == 5  # any size, any mode of 8 bits
    with pytest.raises(ValueError, match="more than 8 bits"):
        net.classify(Image.new("I;16", (32, 32)))
    without = tmp_path / "without.pt"
    monkeypatch.setattr("resnet_repro.training.build.load_images", no_data)
    done(export, f"run={runs[0].path}", f"out={without}")
    with pytest.raises(WeightsError, match="holds no mean of the training images"):
        api.load_net(without)


def no_data(_):
    raise DataError("not there")


def test_torchvision_weights_under_every_protocol(arrays, tmp_path, monkeypatch):
    torch.manual_seed(0)
    path = tmp_path / "resnet18.pth"
    torch.save(randomise(resnet18(num_classes=10)).state_dict(), path)
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    small = Arrays(*(getattr(arrays, part)[:10] for part in parts), 10, arrays.digests)
    monkeypatch.setattr(data, "load", lambda *_: small)
    pixels = torch.from_numpy(small.test_images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(small.test_labels).long()
    ours = from_file(path, "torchvision").net
    losses = []
    for protocol in ("1-crop", "10-crop", "multi-scale"):
        args = (f"weights={path}", "format=torchvision", "data.name=synthetic", "batch_size=4")
        found = counted(tmp_path / protocol, *args, f"protocol={protocol}")
        geometry = Geometry.of_small_pictures(32)
        score = scorer(protocol, ours, lambda x: (x - MEAN) / STD, geometry.window)
        with torch.no_grad():
            scores = score(views_of(protocol, pixels, geometry))
        assert found["protocol"] == protocol
        assert found["wrong1"] == int((scores.argmax(1) != labels).sum())
        assert found["loss"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-4)
        losses.append(round(found["loss"], 3))
    assert len(set(losses)) == 3


def test_runs_are_refused_where_they_cannot_be_counted(runs, tmp_path):
    for word, message in (
        ("protocol=10-crop", "CIFAR nets are tested on the single view"),
        ("split=val", "split=val: the net was trained on all"),
        ("data.name=cifar10", "data.name=cifar10: the nets and their means belong to synthetic"),
    ):
        refused(message, f"run={runs[0].path}", f"results_dir={tmp_path}", word)
    refused("config.yaml: cannot be read", f"run={tmp_path}", f"results_dir={tmp_path}")

    copied = tmp_path / "runs" / "smoke" / "x" / "seed0"
    shutil.copytree(runs[0].path, copied)
    args = (f"run={copied}", f"results_dir={tmp_path}")
    status = json.loads((copied / "status.json").read_text())
    (copied / "status.json").write_text(json.dumps(status | {"state": "preempted"}))
    message = "the run is preempted, not finished; train it to its end first\n"
    refused(f"error: {copied}: {message}", *args)
    (copied / "status.json").write_text(json.dumps(status))
    final = copied / "checkpoints" / "iter_00000006.pt"
    content = bytearray(final.read_bytes())
    content[len(content) // 2] ^= 1  # torch.load would not notice
    final.write_bytes(content)
    refused("does not have the digest", *args, code=4)
    checkpoint = (f"weights={final}", "format=ours", f"results_dir={tmp_path}")
    refused("does not have the digest", *checkpoint, code=4)
    final.unlink()
    refused("no final checkpoint (they are not kept in version control)", *args, code=4)
    assert results(tmp_path) == {}


def test_a_result_is_replaced_by_itself_but_not_by_another(akamaster, tmp_path, monkeypatch):
    path, _ = akamaster
    args = [f"weights={path}", "format=akamaster", "data.name=synthetic", "name=same"]
    args.append(f"results_dir={tmp_path}")
    done(evaluate, *args)
    done(evaluate, *args)
    before = (tmp_path / "same.json").read_bytes()
    other = tmp_path / "other.th"
    torch.save(randomise(TheirNet(2)).state_dict(), other)
    monkeypatch.setattr(Session, "count", pytest.fail)  # refused before anything is counted
    refused("same.json holds another evaluation", f"weights={other}", *args[1:])
    assert (tmp_path / "same.json").read_bytes() == before
    assert math.isfinite(json.loads(before)["loss"])
    os.mkfifo(tmp_path / "pipe.json")
    refused("pipe.json holds another", *args[:3], "name=pipe", args[4])
    refused("results_dir=/dev/null/x: ca", *args[:3], "name=x", "results_dir=/dev/null/x")


def test_files_of_one_name_from_two_folders_are_both_counted_and_kept(akamaster, tmp_path):
    paths = [tmp_path / folder / "model_best.pth.tar" for folder in ("first", "lr=0.1,b=2")]
    for path, seed in zip(paths, (1, 2), strict=True):
        path.parent.mkdir()
        torch.manual_seed(seed)
        torch.save({"state_dict": TheirNet(1).state_dict(), "epoch": 3}, path)
    shown = [str(path).replace(",", r"\,") for path in paths]
    args = ("format=akamaster", "data.name=synthetic", f"results_dir={tmp_path / 'results'}")
    for path in (*shown, *shown):  # a rerun replaces its own
        done(evaluate, f"weights={path}", *args)
    found = results(tmp_path / "results")
    assert len(found) == 2
    assert "model_best.pth" in found
    digests = {each["models"][0]["sha256"] for each in found.values()}
    assert digests == {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert all(name == each["name"] for name, each in found.items())
    note = "model_best.pth.tar: took state_dict of its contents"
    assert found["model_best.pth"]["notes"] == [note]


def test_the_number_is_printed_even_if_it_cannot_be_kept(akamaster, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnet_repro.evaluate.write_text_atomic", full)
    args = (f"weights={akamaster[0]}", "format=akamaster", "data.name=synthetic")
    code, out, err = ask(evaluate, *args, f"results_dir={tmp_path}")
    assert code == 2
    assert "| ResNet-8 (zero pad both) |" in out
    assert err.splitlines()[-1].endswith("cannot be written (No space left on device)")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("protocl=10-crop",), "unknown option 'protocl'; did you mean 'protocol'?"),
        (("weights=a.pt", "protocol=5-crop", "format=ours"), "protocol=5-crop: must be one of 1-"),
        (("weights=none.pt", "format=akamaster"), "weights=none.pt: must be an existing file"),
        (("weights=/dev/null", "format=ours"), "weights=/dev/null: must be an existing file\n"),
        (("weights=none.pt",), "format is not set; must be one of ours, akamaster, torchvision"),
        (("weights=a", "format=caffe"), "format=caffe: must be one of ours, akamaster"),
        (("run=nowhere",), "run=nowhere: must be an existing folder"),
        (("run=.", "format=ours"), "format=ours: only with weights="),
        (("run=.", "weights=a", "format=ours"), "give either weights=FILE"),
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
        (("run=.", "weights_key=ema"), "weights_key=ema: only with format=akamaster or torch"),
        (("run=.", "stride_in=1x1"), "stride_in=1x1: only with format=torchvision"),
        (("weights=a", "format=torchvision", "stride_in=7x7"), "stride_in=7x7: must be one of 1x1"),
        # of export
        (("out=a.pt",), "run is not set"),
        (("run=nowhere", "out=a.pt"), "run=nowhere: must be an existing folder"),
        (("run=.", "out=nowhere/a.pt"), "out=nowhere/a.pt: must be a file in an existing folder"),
        (("run=.", "out=a.safetensors"), "must end in .safetensors exactly if"),
        (("run=.", "out=a.pt", "format=onnx"), "format=onnx: must be one of state_dict, safet"),
        (("run=.,..", "out=a.pt"), "out=a.pt: must be an existing folder where there are several"),
        (("run=.,.", "out=."), "run=.,.: two runs of the same name"),
        (("run=/", "out=src"), "config.yaml: cannot be read"),
        (("run=.", "out=/dev/null"), "out=/dev/null: must be a file in an existing folder"),
        # of responses
        (("images=5",), "run is not set"),
        (("run=nowhere", "images=0"), "images=0: must be an integer >= 1"),
        (("run=.", "images=5"), "config.yaml: cannot be read"),
    ],
)
def test_bad_words_are_refused_in_one_line(args, message):
    keys = {word.partition("=")[0] for word in args}
    command = export if "out" in keys else responses if "images" in keys else evaluate
    refused(message, *args, command=command)


def test_only_regular_files_and_free_names_are_written(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "link.pt").symlink_to(tmp_path / "pipe.pt")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "b_a_c.pt")
    run = tmp_path / "a" / "b" / "c"
    run.mkdir(parents=True)
    refused("out is not set", f"run={run}", command=export)
    for out in ("pipe.pt", "link.pt", "out"):
        message = "must be a file in an existing folder"
        refused(message, f"run={run}", f"out={tmp_path / out}", command=export)
    assert (tmp_path / "pipe.pt").is_fifo()


def test_help_lists_the_exit_codes():
    for command in (evaluate, export):
        assert "\nExit codes: 0 done, " in done(command, "--help")


def test_files_that_cannot_be_counted_are_refused_and_nothing_is_written(tmp_path, monkeypatch):
    hundred, wild = TheirNet(1), TheirNet(1).eval()
    hundred.linear = nn.Linear(64, 100)
    for module in wild.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1e30)
    path, out = tmp_path / "a.th", tmp_path / "results"
    args = (f"weights={path}", "format=akamaster", "data.name=synthetic", f"results_dir={out}")
    for state, code, message in (
        (hundred.state_dict(), 2, "a.th: its net has 100 classes, synthetic has 10"),
        (wild.state_dict(), 4, "a.th: scores are not finite"),
    ):
        torch.save(state, path)
        refused(message, *args, code=code)
    assert not out.exists()
    (tmp_path / "a,b.pt").touch()
    refused(r"a comma in a path is written \,", f"weights={tmp_path}/a,b.pt", "format=ours")
    monkeypatch.setenv("HOME", str(tmp_path))  # a tilde is the home folder
    (tmp_path / "b.pt").touch()
    refused("b.pt: not a weights file", "weights=~/b.pt", "format=ours", code=4)


def test_responses_of_a_run_that_is_not_finished(tmp_path):
    brief = ("recipe.max_iters=6", "recipe.milestones=[4]", "probes.signals=false")
    job = small_job(tmp_path, *brief, f"probes.response_images={TESTED}")
    assert do(job, StopAt(5)) == "preempted"
    assert job.folder.table("responses") == []
    config = (job.folder.path / "config.yaml").read_text(encoding="utf-8")
    meta = job.folder.meta()
    job.folder.write_meta(meta | {"precision": "tf32"})  # of another machine
    for key, value, there in (("devices", "1", "2"), ("graph", "auto", "always")):
        changed = config.replace(f"{key}: {value}", f"{key}: {there}")
        changed = changed.replace("device: auto", "device: cuda")
        (job.folder.path / "config.yaml").write_text(changed)
        output = done(responses, f"run={job.folder.path}", "images=50", "threads=1")
    (job.folder.path / "config.yaml").write_text(config)
    job.folder.write_meta(meta)
    assert "50 test images, iteration 5" in output
    assert len(job.folder.table("responses")) == 7
    assert do(job) == "finished"  # the run resumes as if nothing had happened
    finished = job.folder.table("responses")
    output = done(responses, f"run={job.folder.path}", "images=1000", "threads=1")
    assert f"{TESTED} test images" in output  # the synthetic set has no more
    assert job.folder.table("responses") == finished
