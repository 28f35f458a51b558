"""Mirror a run in Weights & Biases, from a process that reads the run folder as it grows.

Nothing is sent to the process; it ends when its standard input does, so it outlives neither a
finished run nor a killed one. Its failures (no package, no key, no network, a crash, a full disk)
cost the run one line on standard error. Each part of a resumed run holds the earlier records too:
the newest folder below ``wandb/`` is the whole run, under the same W&B id.

``python -m resnet_repro.mirror RUN_DIR ...`` sends runs that were logged without a mirror.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from resnet_repro.config import MODES
from resnet_repro.exits import explained, notify
from resnet_repro.paths import expand, python_path
from resnet_repro.runs.folder import RunFolder
from resnet_repro.runs.metrics import Record
from resnet_repro.same_run import differences, filled

POLL_SECONDS = 0.5  # between two reads of the log
INIT_SECONDS = 10.0  # for a server that does not answer
CLOSE_SECONDS = 30.0  # that a finished run waits for W&B at most
FINISH_SECONDS = 60  # after the last record; then the process is ended
FAILED = 3  # exit code of the process after it reported why
FINAL = ("test", "val", "train_clean")  # kinds of record whose last is in the summary
# The configuration decides: settings from outside would be a second source.
SET_BY_RUN = ("MODE", "DISABLED", "DIR", "PROJECT", "RUN_ID", "RESUME")
SETTINGS: dict[str, Any] = {
    "console": "off", "silent": True, "quiet": True, "init_timeout": INIT_SECONDS,
    "disable_git": True, "save_code": False,  # revision and machine are in the run's meta.json
    "x_disable_stats": True, "x_disable_meta": True,
}  # fmt: skip


class Mirror:
    """The mirror of a run, as configured. No method raises; only close waits."""

    def __init__(self, folder: RunFolder):
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start following the run. Its log must be open: by then it ends at the checkpoint."""
        try:
            logger = filled(self._folder.config())["logger"]
            if logger["kind"] != "none" and logger["mode"] != "disabled":
                self._process = follower(self._folder, logger["mode"])
        except Exception as error:
            notify(f"W&B: {in_one_line(error)}")

    def close(self) -> None:
        """End it, once ``status.json`` has the run's final state.

        Only a finished run waits; any other may be pre-empted.
        """
        process, self._process = self._process, None
        try:
            if process is not None:
                end(process, CLOSE_SECONDS if self._folder.is_finished else 0)
        except Exception as error:
            notify(f"W&B: {in_one_line(error)}")


def follower(folder: RunFolder, mode: str) -> subprocess.Popen[bytes]:
    """Start the process that mirrors a run until its standard input is closed."""
    reserved = {f"WANDB_{name}" for name in SET_BY_RUN}
    env = {key: value for key, value in os.environ.items() if key not in reserved}
    command = [sys.executable, "-P", "-m", "resnet_repro.mirror"]  # -P: ./wandb is not the package
    return subprocess.Popen(
        [*command, "--follow", "--mode", mode, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # Where it is closed, its number may be that of a file by now.
        stderr=None if sys.stderr else subprocess.DEVNULL,
        env=env | {"PYTHONPATH": python_path(), "WANDB_ERROR_REPORTING": "false"},
        start_new_session=True,  # Ctrl-C is for the run
    )


def end(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Let a follower finish, or kill it after ``seconds``; return its exit code.

    None where ``seconds`` are 0 and it is still busy.
    """
    assert process.stdin is not None
    process.stdin.close()
    try:
        code = process.wait(seconds) if seconds else process.poll()
    except subprocess.TimeoutExpired:
        process.kill()
        notify(f"W&B: its process did not finish in {seconds:.0f} s")
        return process.wait()
    if code not in (0, FAILED, None):
        notify(f"W&B: its process ended (exit code {code})")
    return code


def in_one_line(error: BaseException) -> str:
    """Return an error in one short line."""
    if isinstance(error, ModuleNotFoundError) and error.name == "wandb":
        return "the package wandb is not installed"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


# What follows runs in the process of the mirror.


def follow(folder: RunFolder, mode: str) -> None:
    """Log the run until standard input ends; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the run decides when it is over
    os.nice(10)  # training comes first
    report = silence_output()
    code = 0
    try:
        mirror_run(folder, mode, report)
    except BaseException as error:
        report(in_one_line(error))
        code = FAILED
    signal.alarm(FINISH_SECONDS)
    with contextlib.suppress(BaseException):
        sys.modules["wandb"].teardown()  # ends its service, which would become a zombie
    os._exit(code)  # skips wandb's exit hooks, which may wait for a dead service


def silence_output() -> Callable[[str], None]:
    """Silence standard error but for the returned function, which prints the first line it gets."""
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)

    def report(message: str) -> None:
        with contextlib.suppress(OSError):
            os.write(stderr, f"W&B: {message}\n".encode())
        os.dup2(devnull, stderr)

    return report


def mirror_run(folder: RunFolder, mode: str, report: Callable[[str], None]) -> None:
    """Log records as they are written, then the final numbers and a picture of the curves.

    OSError: the files cannot be written where they belong; else whatever wandb raises.
    """
    out_dir = folder.path / "wandb"
    out_dir.mkdir(exist_ok=True)
    run = opened(init_arguments(out_dir, folder), mode, report)
    files = Path(run.dir).resolve().parent
    if folder.path.resolve() not in files.parents:
        raise OSError(f"{folder.path} cannot be written")
    logged = int((getattr(run, "resumed", False) and run.summary.get("record")) or 0)
    last = 0
    for number, record in enumerate(growing(folder.metrics_path), start=1):
        last = record.get("iter", last)
        if number > logged:  # a resumed online run knows the earlier ones
            run.log(as_metrics(record) | {"record": number})
    run.summary.update(final_numbers(folder))
    try:  # a failed picture must not lose the numbers
        from resnet_repro.analysis.notebook import save_picture

        image = importlib.import_module("wandb").Image(str(save_picture(folder.path, out_dir)))
        run.log({"iter": last, "curves": image})
    except Exception as error:
        report(f"no picture of the curves ({in_one_line(error)})")
    run.finish(exit_code=int(not folder.is_finished))
    # wandb is silent about a full disk.
    if not any(path.stat().st_size for path in files.glob("run-*.wandb")):
        raise OSError(f"{files} holds no data")
    with tempfile.TemporaryFile(dir=files) as probe:
        probe.write(bytes(1 << 16))


def opened(arguments: dict[str, Any], mode: str, report: Callable[[str], None]) -> Any:
    """Open the W&B run; where online logging is not possible, offline."""
    wandb: Any = importlib.import_module("wandb")
    init = partial(wandb.init, settings=wandb.Settings(**SETTINGS), **arguments)
    try:
        run = init(mode=mode)
    except Exception as error:
        if mode != "online":
            raise
        wandb.teardown()  # its service would say that the run id is in use
        run = init(mode="offline")
        reason = in_one_line(error)
        report(f"online logging is not possible ({reason}); logging offline, `wandb sync` sends it")
    for name in ("iter", "record"):
        run.define_metric(name, hidden=True)
    run.define_metric("*", step_metric="iter")  # W&B's own step would refuse to go back
    return run


def growing(path: Path) -> Iterator[Record]:
    """Yield the records of a log as they are written, until standard input ends."""
    if not path.exists():
        return
    with path.open("rb") as file:
        torn, is_over = b"", False
        while not is_over:
            ready, _, _ = select.select([0], [], [], POLL_SECONDS)
            is_over = bool(ready) and not os.read(0, 1)
            if is_over:
                signal.alarm(FINISH_SECONDS)
            *lines, torn = (torn + file.read()).split(b"\n")
            yield from map(json.loads, lines)


def as_metrics(record: Record) -> dict[str, Any]:
    """Return a record under W&B's names: ``iter``, ``train/loss``, ``test/10-crop/loss``."""
    common = {key: record[key] for key in ("iter", "epoch") if record.get(key) is not None}
    if record["kind"] == "event":
        return common | {f"event/{record['event']}": record.get("value", 1)}
    usual = {"protocol": "1-crop", "bn": "running"}
    view = [record[key] for key, normal in usual.items() if record.get(key, normal) != normal]
    return common | {
        "/".join([record["kind"], *view, key]): value
        for key, value in record.items()
        if isinstance(value, int | float) and key not in ("iter", "epoch")
    }


def final_numbers(folder: RunFolder) -> dict[str, Any]:
    """Return the last error of each kind, and what ``meta.json`` says of size and speed."""
    meta, last = folder.meta(), {record["kind"]: record for record in folder.metrics()}
    values = {f"last/{kind}/top1_err": last[kind]["top1_err"] for kind in FINAL if kind in last}
    values |= {key: meta.get(key) for key in ("images_per_second", "wall_time_s", "precision")}
    values |= {key: meta.get("net", {}).get(key) for key in ("params", "multiply_adds")}
    values["hardware"] = meta.get("hardware", {}).get("label")
    return {key: value for key, value in values.items() if value is not None}


def run_id(config: Mapping[str, Any], started: str = "") -> str:
    """Return the W&B id of a run: the same from any copy of its folder, another if trained anew."""
    # Only what differs from the default: options that the schema gets later change no id.
    changed = {key: value for key, (_, value) in differences({}, config).items()}
    text = json.dumps([changed, started], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def init_arguments(out_dir: Path, folder: RunFolder) -> dict[str, Any]:
    """Return the arguments of ``wandb.init``; a folder keeps its first id."""
    config, id_file = folder.config(), out_dir / "run_id"
    if not id_file.exists():
        id_file.write_text(run_id(config, folder.meta().get("started", "")) + "\n", "utf-8")
    model, shortcut = config["model"], config["model"]["shortcut"]
    kind = "plain" if shortcut == "none" else f"shortcut {shortcut}"
    return {
        "project": filled(config)["logger"]["project"],
        "id": id_file.read_text(encoding="utf-8").strip(),
        "resume": "allow",
        "name": f"{config['name']} {config['profile']} seed{config['seed']}",
        "group": config["experiment"],
        "tags": [config["profile"], model["family"], kind],
        "dir": str(out_dir.parent.resolve()),  # wandb makes its own wandb/ there
        "config": config,
    }


def main() -> None:
    """Send the named runs; exit code 1 if one could not be sent."""
    parser = argparse.ArgumentParser(description="Send logged runs to Weights & Biases.")
    parser.add_argument("folders", nargs="+", type=expand, metavar="RUN_DIR")
    parser.add_argument("--mode", choices=[m for m in MODES if m != "disabled"], default="offline")
    follows = "one run that grows, until standard input ends"
    parser.add_argument("--follow", action="store_true", help=follows)
    args = parser.parse_args()
    folders = [RunFolder(path) for path in args.folders]
    if args.follow:
        follow(folders[0], args.mode)
    how = "" if args.mode == "online" else "; wandb sync of its wandb/latest-run sends it"
    with explained():
        for folder in folders:
            folder.config()
        codes = []
        for folder in folders:
            codes.append(end(follower(folder, args.mode), FINISH_SECONDS + INIT_SECONDS))
            notify(f"{folder.path}{': not sent' if codes[-1] else how}")
        if any(codes):
            sys.exit(1)


if __name__ == "__main__":
    main()
