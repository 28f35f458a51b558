"""Weights files anyone may have made: only numbers are taken from them."""

import argparse
import os
import pickle
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import refusals
from resnet_repro.config import DataConfig
from resnet_repro.evaluation import weights
from resnet_repro.evaluation.subjects import from_export, from_file
from resnet_repro.evaluation.weights import WeightsError, packed
from resnet_repro.exits import CHECKPOINT, exit_code
from resnet_repro.models.build import build
from resnet_repro.models.formats import to_torchvision
from resnet_repro.models.spec import NetSpec
from test_models_formats import TheirNet, randomise

STATE = TheirNet(1).state_dict()
OTHER = TheirNet(1).state_dict()


def bare_pickle(content, path, protocol=None):
    path.write_bytes(pickle.dumps(content, protocol))


# As torch before 1.6 wrote it, and so as the published CIFAR files are.
old_format = partial(torch.save, _use_new_zipfile_serialization=False)
old_bare_pickle = partial(bare_pickle, protocol=0)


def saved(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def refused(path, message, fmt="akamaster", **choice):
    line = refusals.refused(from_file, path, fmt, match=message, kind=WeightsError, **choice)
    assert len(line) < 500


@pytest.mark.parametrize("write", [torch.save, old_format, bare_pickle, old_bare_pickle])
def test_code_in_a_file_is_refused_by_name_and_not_run(tmp_path, write, hostile):
    file = tmp_path / "weights.th"
    state = dict(STATE) if write is torch.save else {}
    write({"state_dict": state, "note": hostile}, file)
    refused(file, r"holds more than data: (posix|nt)\.mkdir$")
    assert exit_code(WeightsError()) == CHECKPOINT
    assert not hostile.canary.exists()
    with file.open("rb") as opened:  # the canary does sing where a file is trusted
        if write in (torch.save, old_format):
            torch.load(opened, weights_only=False)
        else:
            pickle.load(opened)
    assert hostile.canary.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_what_training_scripts_keep_beside_weights_is_refused_with_the_way_out(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "a TorchScript program; save its state_dict")
    for content, message in (
        (TheirNet(1), r"torch\.nn\.modules.*; a whole model: .* save model\.state_dict\(\)$"),
        ({"model": STATE, "root": Path("x")}, r"pathlib\.\w+; if you trust .* save its weights"),
        ({"model": STATE, "args": argparse.Namespace(lr=1)}, r"argparse\.Namespace; if you trust"),
    ):
        refused(saved(tmp_path, content), message)
    trusted = torch.load(tmp_path / "a.pt", weights_only=False)  # the advice, followed
    assert from_file(saved(tmp_path, trusted["model"]), "akamaster").spec.depth == 8


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": STATE, "best_prec1": 91.7}, "state_dict"),
        ({"model": STATE, "optimizer": {"state": {0: {"momentum": torch.ones(2)}}}}, "model"),
        ({"net": STATE, "acc": 91.7, "epoch": 3}, "net"),
        ({"checkpoint": {"model": STATE}, "epoch": 3}, "checkpoint.model"),
    ],
)
def test_the_only_state_dict_of_a_file_is_taken_and_named(tmp_path, content, key):
    subject = from_file(saved(tmp_path, content), "akamaster")
    assert torch.equal(subject.net.state_dict()["head.fc.weight"], STATE["linear.weight"])
    assert subject.source["weights_key"] == key
    assert subject.notes == (f"a.pt: took {key} of its contents",)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({"state_dict": STATE, "state_dict_ema": OTHER}, ("state_dict", "state_dict_ema")),
        ({"model": STATE, "model_ema": OTHER, "epoch": 3}, ("model", "model_ema")),
        ({"model": {"online": STATE, "target": OTHER}}, ("model.online", "model.target")),
        ({"net": STATE, "ema": {"shadow": {"module": OTHER}}}, ("net", "ema.shadow.module")),
    ],
)
def test_one_of_several_state_dicts_must_be_chosen(tmp_path, content, keys):
    path = saved(tmp_path, content)
    refused(path, "holds several state dicts; choose .*: " + ", ".join(keys))
    for key, state in zip(keys, (STATE, OTHER), strict=True):
        subject = from_file(path, "akamaster", key)
        assert torch.equal(subject.net.state_dict()["head.fc.weight"], state["linear.weight"])
    message = f"weights_key=best: no state dict; there is {keys[0]}, "
    refused(path, message, weights_key="best")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.",
               "_fsdp_wrapped_module.", "net.module."],
)  # fmt: skip
def test_wrappers_are_removed_in_any_order_and_reported(tmp_path, prefix):
    state = {f"{prefix}{key}": value for key, value in STATE.items()}
    subject = from_file(saved(tmp_path, {"model": state, "epoch": 3}), "akamaster")
    wrappers = prefix.rstrip(".").split(".")
    assert subject.source["wrappers"] == wrappers
    assert subject.notes[1] == f"a.pt: took {', '.join(wrappers)} out of the keys"
    x = torch.rand(2, 3, 32, 32)
    unwrapped = from_file(saved(tmp_path, STATE), "akamaster")
    with torch.no_grad():
        assert torch.equal(subject.net(x), unwrapped.net(x))


def test_wrappers_inside_a_net_and_averaged_models(tmp_path):
    """A stage compiled alone; and torch's averaged model."""
    inside = {key.replace("layer1.", "layer1._orig_mod."): value for key, value in STATE.items()}
    averaged = torch.optim.swa_utils.AveragedModel(TheirNet(1)).state_dict()
    for state, wrappers in ((inside, ["_orig_mod"]), (averaged, ["n_averaged", "module"])):
        subject = from_file(saved(tmp_path, state), "akamaster")
        assert subject.source["wrappers"] == wrappers


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("conv1.weight", torch.ones(16, 3, 3, 3, dtype=torch.int8), "is torch.int8; exp"),
        ("linear.bias", torch.ones(10, dtype=torch.bool), "is torch.bool; exp"),
        ("bn1.running_mean", torch.ones(16, dtype=torch.uint8), "is torch.uint8; exp"),
        ("bn1.bias", torch.full((16,), 1e300, dtype=torch.float64), "holds values that are not fi"),
        ("layer1.0.bn1.running_var", -torch.ones(16), "is a variance and holds negative values"),
        ("layer1.0.bn1.running_var", torch.full((16,), torch.nan), "holds values that are not fi"),
        ("bn1.running_mean", torch.full((16,), -torch.inf), "holds values that are not finite"),
        ("conv1.weight", 3, "is no plain tensor"),
        ("conv1.weight", torch.zeros(2, 2).to_sparse(), "is no plain tensor"),
        ("conv1.weight", torch.zeros(2, device="meta"), "is no plain tensor"),
    ],
)
def test_numbers_of_the_wrong_kind_are_refused_by_file_and_key(tmp_path, key, value, message):
    refused(saved(tmp_path, STATE | {key: value}), rf"a\.pt: {key} {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list, expected a dict of tensors"),
        ({"state_dict": {"\x1b[2J\nname" + "x" * 999: 3}}, "holds no state dict"),
        ({"\x1b[2J\nname" + "x" * 999: 3, "a.weight": torch.zeros(1)}, "name.* is no plain tensor"),
        # a few stored numbers that claim to be many
        (STATE | {"linear.weight": torch.zeros(1).expand(2**29, 64)}, "claims more than"),
        (STATE | {f"module.{key}": t for key, t in OTHER.items()}, r"two sets .* conv1\.weight"),
    ],
)
def test_contents_that_are_no_weights_are_refused(tmp_path, content, message):
    path = saved(tmp_path, content)
    assert path.stat().st_size < 10**6
    refused(path, message)


def test_a_file_without_weights_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    refused(tmp_path / "pipe.pt", "not a regular file")
    refused(tmp_path, "not a regular file")
    refused(tmp_path / "none.pt", "no such file")
    for data in (b"<html>not found</html>", b"PK\x03\x04 and no archive", b"\0" * 99):
        (tmp_path / "a.pt").write_bytes(data)
        refused(tmp_path / "a.pt", "damaged")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
    refused(tmp_path / "a.safetensors", "not a safetensors file, or damaged")
    refused(saved(tmp_path, STATE), r"no torchvision weights: missing fc\.weight", "torchvision")
    refused(tmp_path / "a.pt", r"does not name its net; expected a file of .*export", "ours")


def test_dicts_in_circles_and_dicts_of_many_names(tmp_path):
    """Neither is followed for ever, and one state dict under two names is one."""
    circle = {"epoch": 3}
    circle |= {f"self{n}": circle for n in range(1_000)}
    refused(saved(tmp_path, circle), "holds no state dict")
    path = saved(tmp_path, {"best": STATE, "last": STATE})
    for chosen, key in ((None, "best"), ("last", "last")):
        assert from_file(path, "akamaster", chosen).source["weights_key"] == key


@pytest.mark.parametrize("write", [torch.save, old_format])
@pytest.mark.parametrize("share", [0, 0.002, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused_in_one_line(tmp_path, write, share):
    path = tmp_path / "cut.pt"
    write(STATE, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "truncated|damaged")


def test_large_files_and_archives_that_unpack_into_large_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "LARGEST_FILE", 10_000)
    path = saved(tmp_path, {"a": torch.zeros(5_000)})
    refused(path, "larger than 10000 bytes")
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    assert path.stat().st_size < 10_000
    refused(path, "unpacks to 2[0-9]{4} bytes, more than 10000")


def ours_saying(path, about):
    state = build(NetSpec("cifar", 8, "A"), 10).state_dict()
    path.write_bytes(packed(state, about, "state_dict"))


GOOD = {"model": {"depth": 8, "shortcut": "A"}, "data": {"name": "cifar10"}}


def test_a_file_of_ours_says_its_net(tmp_path):
    ours_saying(tmp_path / "a.pt", GOOD)
    subject = from_file(tmp_path / "a.pt", "ours")
    assert subject.spec.label == "ResNet-8"
    assert not subject.net.training
    plain = {"model": {"depth": 8, "shortcut": "none"}, "data": {}}
    ours_saying(tmp_path / "b.pt", plain)  # the same tensors: only the story differs
    assert from_file(tmp_path / "b.pt", "ours").spec.label == "plain-8"


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "model is missing"),
        (GOOD | {"model": {"depth": "8"}}, r"model\.depth=8: must be an integer"),
        (GOOD | {"model": {"depth": 9}}, "6n\\+2"),
        (GOOD | {"model": {"depth": 6 * 10**8 + 2}}, "depth 600000002 and holds"),
        (GOOD | {"model": {"depth": 14, "shortcut": "A"}}, "missing stage1"),
        (GOOD | {"model": {"depth": 8, "colour": 3}}, "unknown option 'model.colour'"),
        (GOOD | {"data": {"name": "mnist"}}, r"data\.name=mnist: must be one of"),
        (GOOD | {"data": []}, "data is missing"),
        ("no mapping", "does not name its net"),
    ],
)
def test_contradictory_options_are_refused_in_one_line(tmp_path, about, message):
    ours_saying(tmp_path / "a.pt", about)
    refused(tmp_path / "a.pt", message, "ours")


def test_half_precision_weights_become_single(tmp_path):
    halved = TheirNet(1).half().state_dict()
    subject = from_file(saved(tmp_path, {"state_dict": halved}), "akamaster")
    assert {p.dtype for p in subject.net.parameters()} == {torch.float32}


@torch.no_grad()
def test_the_stride_of_torchvision_keyed_bottlenecks_can_be_given(tmp_path):
    papers = randomise(build(NetSpec("imagenet", 50, "B"), 3))
    twin = NetSpec("imagenet", 50, "B", stride_in="3x3")  # renames the keys; the stride is no key
    path = saved(tmp_path, to_torchvision(papers.state_dict(), twin))
    x = torch.rand(1, 3, 64, 64)
    loaded = from_file(path, "torchvision", stride_in="1x1")
    assert loaded.spec == NetSpec("imagenet", 50, "B")
    torch.testing.assert_close(loaded.net(x), papers(x))
    assert not torch.allclose(from_file(path, "torchvision").net(x), papers(x), rtol=1e-2)
    small = NetSpec("imagenet", 18, "B")
    saved(tmp_path, to_torchvision(build(small, 3).state_dict(), small))
    refused(path, "only bottlenecks", "torchvision", stride_in="3x3")


def test_ours_in_torchvisions_keys_are_prepared_as_they_were_trained(tmp_path):
    spec = NetSpec("imagenet", 18, "B")
    state = to_torchvision(build(spec, 3).state_dict(), spec)
    about = {"model": {"family": "imagenet", "depth": 18, "shortcut": "B"},
             "data": {"name": "folder", "mean": "channel"}, "name": "x", "profile": "paper",
             "keys": "torchvision", "seed": 3, "iter": 7, "precision": "bf16"}  # fmt: skip
    (tmp_path / "a.pth").write_bytes(packed(state, about, "torchvision"))
    subject = from_file(tmp_path / "a.pth", "torchvision")
    assert subject.data == DataConfig(name="folder", mean="channel")
    assert (subject.precision, subject.spec) == ("bf16", spec)
    assert (subject.source["run"], subject.source["iter"]) == ("paper/x/seed3", 7)
    refused(tmp_path / "a.pth", "has torchvision's keys; use format=torchvision", "ours")
    assert from_export(tmp_path / "a.pth")[0].spec == spec


def test_weights_changed_after_their_export_are_not_the_runs(tmp_path):
    path = tmp_path / "a.pt"
    state = build(NetSpec("cifar", 8, "A"), 10).state_dict()
    ours_saying(path, GOOD | {"weights_sha256": weights.tensors_digest(state)})
    assert from_file(path, "ours").num_classes == 10
    state = torch.load(path, weights_only=True)
    state["head.fc.bias"] += 1
    saved(tmp_path, state)  # torch keeps the table in which the export says what it is
    refused(path, "its weights were changed after they were exported", "ours")
