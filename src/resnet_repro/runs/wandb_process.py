"""The process that talks to W&B for a run. Started by :mod:`resnet_repro.runs.wandb_pipe`.

It is a script of its own, imports nothing of ours and needs only ``wandb``, so that whatever goes
wrong there (a hang, a crash, a full disk, signals, exit hooks) happens outside the training
process. It reads one JSON object per line from standard input and ends at its end:

``{"start": {...}}``            first line: arguments of ``wandb.init`` and the ``mode``
``{"record": 7, "values": {}}`` the seventh record of ``metrics.jsonl``
``{"summary": {...}}``          final numbers
``{"picture": name, "path": p, "values": {}}``  a PNG and the iteration it belongs to
``{"state": word}``             what became of the run; without it, it was killed

and answers on standard output: ``{"ready": folder}``, ``{"note": reason}`` (it works, but not as
asked), ``{"failed": reason}`` (nothing more will be logged) and ``{"done": folder}``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INIT_SECONDS = 10.0  # for a server that does not answer
FINISH_SECONDS = 30.0  # after the last record; then the process leaves whatever is left
OPTIONS: dict[str, Any] = {
    "console": "off",
    "silent": True,
    "quiet": True,
    "init_timeout": INIT_SECONDS,
    "disable_git": True,  # revision and machine stand in the run's meta.json
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,
}
LATER = "`wandb sync` sends it later"
ANSWERS = os.dup(1)  # wandb may print: its standard output is thrown away below


def answer(**message: str) -> None:
    """Tell the run something; it may be gone."""
    try:
        os.write(ANSWERS, json.dumps(message).encode() + b"\n")
    except OSError:
        os._exit(1)


def start(asked: dict[str, Any]) -> tuple[Any, int]:
    """Open the W&B run; return it and the number of the last record it holds already.

    Online logging that cannot be had becomes offline logging.

    Raises:
        Exception: whatever wandb raises; or files that went elsewhere than they should.
    """
    wandb: Any = importlib.import_module("wandb")
    known = getattr(wandb.Settings, "model_fields", OPTIONS)
    options = {key: value for key, value in OPTIONS.items() if key in known}
    mode = asked.pop("mode")
    try:
        run = wandb.init(mode=mode, settings=wandb.Settings(**options), **asked)
    except Exception as error:
        if mode != "online":
            raise
        wandb.teardown()  # its service would say that the run id is in use
        run = wandb.init(mode="offline", settings=wandb.Settings(**options), **asked)
        reason = in_one_line(error)
        answer(note=f"online logging is not possible ({reason}), logging offline; {LATER}")
    folder = Path(run.dir).resolve()
    if Path(asked["dir"]).resolve() not in folder.parents:
        raise OSError(f"{asked['dir']} cannot be written")
    run.define_metric("iter", hidden=True)
    run.define_metric("record", hidden=True)
    run.define_metric("*", step_metric="iter")  # W&B's own step would refuse to go back
    held = run.summary.get("record", 0) if getattr(run, "resumed", False) else 0
    answer(ready=str(folder.parent))
    return run, int(held or 0)


def work(lines: Iterator[str]) -> None:
    """Log what comes until there is no more."""
    first = json.loads(next(lines))["start"]
    run, held = start(first)
    folder = Path(run.dir).resolve().parent
    state = "running"  # unless it is said otherwise, the run was killed
    for line in lines:
        message = json.loads(line)
        state = message.get("state", state)
        if "summary" in message:
            run.summary.update(message["summary"])
        elif "picture" in message:
            log_picture(run, message)
        elif message.get("record", 0) > held:  # an online run that goes on knows the earlier ones
            run.log(message["values"] | {"record": message["record"]})
    run.finish(exit_code=int(state != "finished"))
    check_written(folder)
    answer(done=str(folder))


def log_picture(run: Any, message: dict[str, Any]) -> None:
    """Log a PNG; one that cannot be logged must not cost the numbers."""
    try:
        image = importlib.import_module("wandb").Image(message["path"])
        run.log(message["values"] | {message["picture"]: image})
    except Exception as error:
        answer(note=f"{message['picture']} is not there ({in_one_line(error)})")


def check_written(folder: Path) -> None:
    """Refuse to call a run logged whose file is not there: wandb says nothing of a full disk.

    Raises:
        OSError: there is no file, it is empty, or nothing more can be written beside it.
    """
    files = list(folder.glob("run-*.wandb"))
    if not files or not files[0].stat().st_size:
        raise OSError(f"{folder} holds no data")
    probe = folder / ".probe"
    try:
        probe.write_bytes(bytes(1 << 16))
    finally:
        probe.unlink(missing_ok=True)


def in_one_line(error: BaseException) -> str:
    """An error in one short line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:200]}" if said else type(error).__name__


def main() -> None:
    """Serve one run."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the run decides when it is over
    os.nice(10)  # training comes first
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    try:
        work(until_the_end())
    except ModuleNotFoundError as error:
        missing = error.name == "wandb"
        answer(failed="the package wandb is not installed" if missing else in_one_line(error))
    except BaseException as error:
        answer(failed=in_one_line(error))
    leave_in_time()
    with contextlib.suppress(BaseException):
        sys.modules["wandb"].teardown()  # ends its service, which would be left as a zombie
    os._exit(0)  # past the exit hooks of wandb, which may wait for a service that is gone


def until_the_end() -> Iterator[str]:
    """The lines of standard input; after the last one not much time is left."""
    yield from sys.stdin
    leave_in_time()


def leave_in_time() -> None:
    """End this process some time from now, whatever it does then."""
    watchdog = threading.Timer(FINISH_SECONDS, os._exit, [1])
    watchdog.daemon = True
    watchdog.start()


if __name__ == "__main__":
    main()
