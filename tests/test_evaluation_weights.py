"""Weights files anyone may have made: only numbers are taken from them."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resnet_repro.evaluation import weights
from resnet_repro.evaluation.subjects import from_file
from resnet_repro.evaluation.weights import WeightsError, checked_tensors, read
from resnet_repro.exits import CHECKPOINT, exit_code
from resnet_repro.models.build import build
from resnet_repro.models.spec import NetSpec
from test_models_formats import TheirNet

Write = Callable[[Path, Any], None]


def new_archive(path: Path, content: object) -> None:
    torch.save(content, path)


def old_format(path: Path, content: object) -> None:
    """As torch before 1.6 wrote it, and so as the published CIFAR files are."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


def old_bare_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


class Hostile:
    """Makes a file when it is unpickled: the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("write", [new_archive, old_format, bare_pickle, old_bare_pickle])
def test_code_in_a_file_is_refused_by_name_and_not_run(tmp_path: Path, write: Write) -> None:
    file, canary = tmp_path / "weights.th", tmp_path / "canary"
    state: dict[str, Any] = dict(TheirNet(1).state_dict()) if write is new_archive else {}
    write(file, {"state_dict": state, "note": Hostile(canary)})
    with pytest.raises(WeightsError, match=r"holds more than data: (posix|nt)\.system$") as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert exit_code(caught.value) == CHECKPOINT
    assert not canary.exists()
    with file.open("rb") as opened:  # the canary does sing where a file is trusted
        torch.load(opened, weights_only=False) if write in (
            new_archive,
            old_format,
        ) else pickle.load(opened)
    assert canary.exists()


def test_a_whole_pickled_net_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match=r"more than data: torch\.nn\.modules\.linear\.Linear"):
        read(tmp_path / "net.pt")


@pytest.mark.parametrize("write", [new_archive, old_format])
def test_files_of_old_and_new_torch_are_read(tmp_path: Path, write: Write) -> None:
    content = {"state_dict": {"a": torch.arange(3.0)}, "best_prec1": 91.73}
    write(tmp_path / "a.th", content)
    file = read(tmp_path / "a.th")
    assert torch.equal(file.content["state_dict"]["a"], torch.arange(3.0))
    assert file.bytes == (tmp_path / "a.th").stat().st_size
    assert file.about is None


@pytest.mark.parametrize("write", [new_archive, old_format])
@pytest.mark.parametrize("share", [0, 0.002, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused_in_one_line(
    tmp_path: Path, write: Write, share: float
) -> None:
    path = tmp_path / "cut.pt"
    write(path, TheirNet(1).state_dict())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(WeightsError, match="truncated|damaged") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"PK\x03\x04 and no archive", b"\0" * 99]
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        read(tmp_path / "a.pt")


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="holds a list, expected a dict of tensors"):
        read(tmp_path / "a.pt")


def test_large_files_and_archives_that_unpack_into_large_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    torch.save({"a": torch.zeros(5_000)}, path)
    with pytest.raises(WeightsError, match="larger than 10000 bytes"):
        read(path, largest=10_000)
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="unpacks to 2[0-9]{4} bytes, more than 10000"):
        read(path, largest=10_000)


def test_a_shape_that_claims_more_than_is_stored_is_refused(tmp_path: Path) -> None:
    state = TheirNet(1).state_dict()
    state["linear.weight"] = torch.zeros(1).expand(2**29, 64)
    torch.save(state, tmp_path / "expanded.pt")
    assert (tmp_path / "expanded.pt").stat().st_size < 10**6
    with pytest.raises(WeightsError, match="claims more than"):
        from_file(tmp_path / "expanded.pt", "akamaster")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = TheirNet(1).state_dict()
    state["layer2.0.conv1.weight"][3, 1] = value
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight holds values that are not"):
        from_file(tmp_path / "a.pt", "akamaster")


@pytest.mark.parametrize(
    "value", [3, "text", torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta"), None]
)
def test_only_plain_tensors_are_weights(tmp_path: Path, value: object) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    file = read(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="b is no plain tensor"):
        checked_tensors(file, {"a": torch.zeros(1), "b": value})


def test_what_a_file_says_cannot_steer_the_terminal(tmp_path: Path) -> None:
    torch.save({"state_dict": {"\x1b[2J\nname" + "x" * 999: 3}}, tmp_path / "a.pt")
    with pytest.raises(WeightsError) as caught:
        from_file(tmp_path / "a.pt", "akamaster")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_no_file_and_a_folder_are_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(WeightsError, match="no such file"):
            read(path)


def test_safetensors_without_the_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    (tmp_path / "a.safetensors").write_bytes(b"\0" * 16)
    monkeypatch.setattr(weights.importlib, "import_module", missing)
    with pytest.raises(WeightsError, match="needs the package safetensors"):
        read(tmp_path / "a.safetensors")


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="not a safetensors file, or damaged"):
        read(tmp_path / "a.safetensors")


def ours_saying(path: Path, about: dict[str, Any] | str) -> None:
    """A file as ``export`` writes it, with another story about its net."""
    from resnet_repro.export import packed

    state = build(NetSpec("cifar", 8, "A"), 10).state_dict()
    path.write_bytes(packed(state, about, "state_dict"))  # type: ignore[arg-type]


GOOD = {"model": {"depth": 8, "shortcut": "A"}, "data": {"name": "cifar10"}}


def test_a_file_of_ours_says_its_net(tmp_path: Path) -> None:
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
        (GOOD | {"model": {"depth": 6 * 10**8 + 2}}, "depth 600000002 with"),
        (GOOD | {"model": {"depth": 14, "shortcut": "A"}}, r"Missing key\(s\)"),
        (GOOD | {"model": {"depth": 8, "colour": 3}}, "unknown option 'model.colour'"),
        (GOOD | {"data": {"name": "mnist"}}, r"data\.name=mnist: must be one of"),
        (GOOD | {"data": []}, "data is missing"),
        ("no mapping", "does not say its net"),
    ],
)
def test_a_story_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, about: dict[str, Any] | str, message: str
) -> None:
    ours_saying(tmp_path / "a.pt", about)
    with pytest.raises(WeightsError, match=message) as caught:
        from_file(tmp_path / "a.pt", "ours")
    assert len(str(caught.value).splitlines()) == 1


def test_a_state_dict_that_says_no_net_is_refused(tmp_path: Path) -> None:
    torch.save(build(NetSpec("cifar", 8, "A"), 10).state_dict(), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"does not say its net; expected a file of .*export"):
        from_file(tmp_path / "a.pt", "ours")


def test_half_precision_weights_become_single(tmp_path: Path) -> None:
    torch.save({"state_dict": TheirNet(1).half().state_dict()}, tmp_path / "half.th")
    subject = from_file(tmp_path / "half.th", "akamaster")
    assert {p.dtype for p in subject.net.parameters()} == {torch.float32}


def test_the_wrong_format_names_the_keys(tmp_path: Path) -> None:
    torch.save(TheirNet(1).state_dict(), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"no torchvision weights: missing fc\.weight"):
        from_file(tmp_path / "a.pt", "torchvision")


def test_an_export_is_a_plain_state_dict(tmp_path: Path) -> None:
    ours_saying(tmp_path / "a.pt", GOOD)
    loaded = torch.load(io.BytesIO((tmp_path / "a.pt").read_bytes()), weights_only=True)
    net = build(NetSpec("cifar", 8, "A"), 10, seed=5)
    net.load_state_dict(loaded)
    expected = build(NetSpec("cifar", 8, "A"), 10).state_dict()
    assert loaded.keys() == expected.keys()
    for name, value in net.state_dict().items():
        assert torch.equal(value, expected[name])
