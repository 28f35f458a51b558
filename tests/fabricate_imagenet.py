"""Made-up runs of ImageNet nets, on ImageNet or Tiny ImageNet."""

import json
from pathlib import Path
from typing import Any

from fabricate import fabricate
from resnet_repro.runs.metrics import read_metrics

LOG_EVERY = {"imagenet": 5_000, "tiny_imagenet": 375}  # iterations, on the paper's schedule
IMAGES = {"imagenet": 50_000, "tiny_imagenet": 10_000}
ENDS = {  # validation and training error at the end, as in Fig. 4 and Table 3
    "plain-18": (31.4, 31.4),
    "plain-34": (32.5, 32.6),
    "ResNet-18 A": (31.1, 29.9),
    "ResNet-34 A": (28.2, 25.0),
    "ResNet-34 B": (27.6, 24.5),
    "ResNet-34 C": (27.3, 24.2),
    "ResNet-50": (24.7, 20.0),
    "ResNet-101": (23.6, 17.0),
    "ResNet-152": (23.0, 16.0),
}


def imagenet_run(
    root: Path,
    label: str,
    *,
    data: str = "imagenet",
    profile: str = "paper",
    seed: int = 0,
    test: float | None = None,
    train: float | None = None,
    train_curve: dict[int, float] | None = None,
    protocols: dict[str, tuple[float, float]] | None = None,
    changes: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write a run folder of an ImageNet net; return its path.

    Args:
        train_curve: points to add to the training error of every record up to an iteration.
        protocols: top-1 and top-5 error of further protocols, logged at the last iteration.
    """
    base, *option = label.split(" ")
    stem = "_".join([data.partition("_")[0], base.lower().replace("-", ""), *option])
    ends = ENDS.get(label, (40.0, 42.0))
    keys: dict[str, Any] = {"experiment": stem, "name": stem}
    if profile == "paper":
        keys["trainer.log_every_iters"] = LOG_EVERY[data]
    path = fabricate(
        root,
        base,
        profile=profile,
        seed=seed,
        test=ends[0] if test is None else test,
        train=ends[1] if train is None else train,
        name=stem,
        changes=keys | (changes or {}),
        **more,
    )
    meta = json.loads((path / "meta.json").read_text())
    meta["net"]["label"], meta["data"]["test_images"] = label, IMAGES[data]
    (path / "meta.json").write_text(json.dumps(meta))
    records = read_metrics(path / "metrics.jsonl")
    for record in records:
        if record["kind"] == "test":
            last = record
            record["num_samples"] = IMAGES[data]
        if record["kind"] == "train":
            curve = (train_curve or {}).items()
            shift = next((shift for until, shift in curve if record["iter"] <= until), 0.0)
            record["top1_err"] = min(100.0, max(0.0, record["top1_err"] + shift))
    for protocol, (top1, top5) in (protocols or {}).items():
        records.append(last | {"protocol": protocol, "top1_err": top1, "top5_err": top5})
    text = "".join(json.dumps(record) + "\n" for record in records)
    (path / "metrics.jsonl").write_text(text)
    return path
