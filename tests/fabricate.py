"""Made-up run folders that look like real ones, for tests of everything that reads them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_repro.conf import protocol
from resnet_repro.config import Config
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import MetricsWriter, read_metrics

# test and training error at the end, as in the paper, and what a very short schedule might give
ENDS = {
    "paper": {
        "plain-20": (9.7, 1.4), "plain-32": (10.1, 1.35), "plain-44": (11.5, 2.7),
        "plain-56": (13.2, 5.6), "plain-110": (65.0, 66.0),
        "ResNet-20": (8.75, 0.7), "ResNet-32": (7.5, 0.3), "ResNet-44": (7.15, 0.2),
        "ResNet-56": (6.97, 0.1), "ResNet-110": (6.6, 0.05), "ResNet-1202": (7.9, 0.05),
    },
    "quick": {"plain-20": (55.0, 57.0), "plain-56": (74.0, 76.0), "ResNet-20": (50.0, 52.0)},
}  # fmt: skip
IMAGENET_ENDS = {  # as in Fig. 4 and Table 3, at every profile
    "plain-18": (31.4, 31.4), "plain-34": (32.5, 32.6),
    "ResNet-18 A": (31.1, 29.9), "ResNet-34 A": (28.2, 25.0),
    "ResNet-34 B": (27.6, 24.5), "ResNet-34 C": (27.3, 24.2),
    "ResNet-50": (24.7, 20.0), "ResNet-101": (23.6, 17.0), "ResNet-152": (23.0, 16.0),
}  # fmt: skip
LOG_EVERY = {"imagenet": 5_000, "tiny_imagenet": 375}  # iterations, on the paper's schedule
TEST_IMAGES = {"imagenet": 50_000}  # in all other sets 10,000


def fabricate(
    root: Path,
    label: str,
    *,
    profile: str = "paper",
    seed: int = 0,
    test: float | None = None,
    train: float | None = None,
    name: str | None = None,
    state: str = "finished",
    until: int | None = None,
    changes: dict[str, Any] | None = None,
    deviations: dict[str, list[Any]] | None = None,
    precision: str = "bf16",
    hardware: str = "2 CPU cores, AMD EPYC",
    responses: Sequence[float] | None = None,
    gradients: Mapping[int, Sequence[float]] | None = None,
    bn_gradients: Mapping[int, Sequence[float]] | None = None,
    probes: bool = False,
    protocols: Mapping[str, tuple[float, float]] | None = None,
    jitter: float = 1.0,
) -> Path:
    """Write a run folder as the training loop would; return its path.

    Args:
        test: the last test error, exactly; ``train``: the mean end of the training curve.
        until: the last iteration logged; all by default.
        changes: dotted configuration keys to set; ``deviations``: what the run recorded of them,
            the paper's value and its own by key.
        gradients: norms of weight gradients by iteration and layer; ``bn_gradients``: at the
            outputs of the batch norms, which runs of an older version did not log.
        probes: log believable responses, gradient norms, their precision and signal.
        protocols: top-1 and top-5 error of further protocols, logged at the last iteration.
        jitter: factor of the noise along the curves.
    """
    config = make_config(label, profile, seed, name, changes or {})
    ends = (ENDS.get(profile, {}) | IMAGENET_ENDS).get(label, (40.0, 42.0))
    ends = (ends[0] if test is None else test, ends[1] if train is None else train)
    folder = RunFolder.at(Path(root), config)
    folder.write_config(config)
    max_iters = config["recipe"]["max_iters"]
    reached = max_iters if until is None else until
    folder.write_status(state, iter=reached, max_iters=max_iters, reason=None, restarts=0)
    meta = make_meta(config, label, precision, hardware)
    folder.write_meta(meta | ({"deviations": deviations} if deviations else {}))
    _write_metrics(folder, config, ends, reached, jitter, protocols or {})
    depth = config["model"]["depth"]
    if probes:
        plain = label.startswith("plain")
        responses = responses or _responses(depth, plain)
        growth = (1200 if plain else 5) ** (depth / 56)
        gradients = gradients or {
            it: np.geomspace(growth ** (0.5 if it > 1 else 1), 1, depth - 1) / (1 + it / max_iters)
            for it in (1, max_iters // 4, max_iters)
        }
        bn_gradients = bn_gradients or gradients
        agreement = {"cosine": 0.5, "relative_error": 1.2, "grad_norm": 2.0}
        agreement |= {f"{name}_float64": 1.9 for name in ("grad_norm", "bn_output_grad_norm")}
        rows = [_layer(i) | agreement | {"bn_output_grad_norm": 2.1} for i in range(1, depth)]
        folder.write_table("gradient_precision", rows)
        signal = {"input_mean_square": 1.0, "output_std": 1.0}
        folder.write_table("signal", [_layer(i) | signal for i in range(1, depth)])
    if responses is not None:
        rows = [_layer(i) | {"std": round(std, 4)} for i, std in enumerate(responses, 1)]
        folder.write_table("responses", rows)
    if gradients is not None:
        norms = []
        for it, values in gradients.items():
            for i, norm in enumerate(values, 1):
                row = {"iter": it, **_layer(i), "grad_norm": f"{norm:.5g}"}
                norms.append(row | {"weight_norm": _weights(it, norm, i)})
                if bn_gradients:
                    norms[-1]["bn_output_grad_norm"] = f"{bn_gradients[it][i - 1]:.5g}"
        folder.write_table("gradients", norms)
    return folder.path


def shift_errors(
    run: Path, points: Callable[[dict[str, Any]], float], of: Path | None = None, until: int = 10**6
) -> None:
    """Log the errors of a run again, or those ``of`` another, each so many points higher."""
    records = read_metrics((of or run) / "metrics.jsonl")
    (run / "metrics.jsonl").unlink()
    with MetricsWriter(run / "metrics.jsonl") as log:
        for record in records:
            if record["iter"] <= until:
                log.write(**record | {"top1_err": record["top1_err"] + points(record)})


def imagenet_run(
    root: Path,
    label: str,
    *,
    data: str = "imagenet",
    profile: str = "paper",
    changes: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """As :func:`fabricate`, of a net like ``ResNet-34 B`` on ImageNet or Tiny ImageNet."""
    net, *option = label.split(" ")
    name = "_".join([data.partition("_")[0], net.lower().replace("-", ""), *option])
    keys: dict[str, Any] = {"experiment": name}
    if profile == "paper":
        keys["trainer.log_every_iters"] = LOG_EVERY[data]
    keys |= changes or {}
    return fabricate(root, label, profile=profile, name=name, changes=keys, **more)


def make_config(
    label: str, profile: str, seed: int, name: str | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Return the configuration of a run as ``conf/`` has it, with changes."""
    family, _, depth = label.partition("-")
    experiment = changes.get("experiment", f"cifar10_{family.lower()}{depth}")
    own = protocol(experiment, profile)
    config = (own or protocol("cifar10_plain20", profile) or Config()).as_mapping()
    if own is None:
        shortcut = {"plain": "none", "ResNet": "A"}[family]
        config["model"] |= {"depth": int(depth), "shortcut": shortcut}
    config |= {"experiment": experiment, "name": name or experiment, "seed": seed}
    for key, value in changes.items():
        *groups, last = key.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return config


def make_meta(config: dict[str, Any], label: str, precision: str, hardware: str) -> dict[str, Any]:
    name = config["data"]["name"]
    images = {"train_images": 50_000, "test_images": TEST_IMAGES.get(name, 10_000)}
    return {
        **{key: config[key] for key in ("experiment", "name", "profile", "seed")},
        "wall_time_s": 3600.0,
        "images_per_second": 1000.0,
        "git": {"revision": "0" * 40, "dirty": False},
        "hardware": {"label": hardware, "cores": 2},
        "precision": precision,
        "data": {"name": name} | images,
        "net": {"label": label, "params": 269_722, "multiply_adds": 40_551_040},
    }


VIEW = {"protocol": "1-crop", "bn": "running"}


def _write_metrics(
    folder: RunFolder,
    config: dict[str, Any],
    ends: tuple[float, float],
    reached: int,
    jitter: float,
    protocols: Mapping[str, tuple[float, float]],
) -> None:
    test, train = ends
    test_images = TEST_IMAGES.get(config["data"]["name"], 10_000)
    random = np.random.default_rng([config["seed"], config["model"]["depth"], 7])
    recipe, evaluation = config["recipe"], config["evaluation"]
    total, log_every = recipe["max_iters"], config["trainer"]["log_every_iters"]
    folder.metrics_path.unlink(missing_ok=True)
    with MetricsWriter(folder.metrics_path) as log:
        for it in range(log_every, reached + 1, log_every):
            common = {"iter": it, "epoch": round(it * 128 / 50_000, 4), "time": it * 0.1}
            wander = 0.0 if it > total * 15 / 16 else jitter
            value = _error(it / total, train, random, 0.03 * wander)
            seen = log_every * recipe["batch_size"]
            log.write("train", **common, **_numbers(value, seen), lr=0.1)
            if it % evaluation["every_iters"] == 0 or it == total:
                value = _error(it / total, test, random, 0.05 * (jitter if it < total else 0.0))
                log.write("test", **common, **_numbers(value, test_images), **VIEW)
        if reached == total:
            clean = _numbers(0.9 * train, 50_000)
            log.write("train_clean", **common, **clean, **VIEW)
        for protocol, (top1, top5) in protocols.items():
            further = _numbers(top1, test_images) | {"top5_err": top5}
            log.write("test", **common, **further, **VIEW | {"protocol": protocol})


def _error(share: float, end: float, random: np.random.Generator, wander: float) -> float:
    """Error at a share of the schedule: from 90 % down, with a step at each drop of the rate."""
    plateau = end + min(8.0, 0.5 * (90 - end))
    if share <= 0.5:
        level, noise = plateau + (90 - plateau) * np.exp(-share * 25), wander
    elif share <= 0.75:
        level, noise = end + 0.15 * (plateau - end) * np.exp(-(share - 0.5) * 10), 0.3 * wander
    else:
        level, noise = end, 0.1 * wander
    return float(np.clip(level * (1 + noise * random.standard_normal()), 0.0, 100.0))


def _numbers(error: float, seen: int) -> dict[str, Any]:
    return {"loss": error / 25, "top1_err": error, "top5_err": error / 5, "num_samples": seen}


def _responses(depth: int, plain: bool) -> list[float]:
    layers = np.linspace(0, 1, depth - 1)
    level = (2.0 if plain else 1.7) * (20 / depth) ** (0.18 if plain else 0.3)
    return list(level * (1 + 0.4 * np.cos(6 * layers)) + 0.6 * layers**8)


def _weights(iteration: int, gradient: float, layer: int) -> float:
    """Norm of a layer's weights after an update; the first goes a long way at a right angle."""
    norm = 10.0 + layer / 100
    return float(np.hypot(norm, 0.1 * gradient)) if iteration == 1 else norm


def _layer(number: int) -> dict[str, Any]:
    return {"layer": number, "name": f"conv{number}"}
