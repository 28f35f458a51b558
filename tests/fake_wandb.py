"""A stand-in for the package wandb that records its calls, or breaks as a test asks.

Tests put it on the path of the W&B process as ``wandb``; ``FAKE_WANDB`` names what goes wrong.
Only where it is empty, or says so of the picture, is a picture drawn: that takes a second.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

HOW = os.environ.get("FAKE_WANDB", "")

if HOW == "not installed":
    raise ModuleNotFoundError("No module named 'wandb'", name="wandb")


if HOW not in ("", "no picture"):
    undrawn = SimpleNamespace(save_picture=lambda *_: __file__)
    sys.modules["resnet_repro.analysis.notebook"] = undrawn


class Settings:
    def __init__(self, **options):
        self.options = options


class Run:
    resumed = HOW == "resumed"

    def __init__(self, mode, asked):
        self.summary = Summary(self)
        place = Path(tempfile.gettempdir() if HOW == "elsewhere" else asked["dir"])
        name = f"{mode}-run-{time.time_ns()}-{asked['id']}"
        self.dir = str(place / "wandb" / name / "files")
        Path(self.dir).mkdir(parents=True)
        self._file = Path(self.dir).parent / f"run-{asked['id']}.wandb"
        self._count = 0
        self._write("init", mode=mode, **asked)

    def _write(self, what, **values):
        if HOW == "disk full":
            self._file.touch()
            return
        with self._file.open("a") as file:
            file.write(json.dumps({"what": what} | values) + "\n")

    def define_metric(self, name, **options):
        self._write("define_metric", name=name, **options)

    def log(self, values):
        self._count += 1
        if HOW == "service killed" and self._count > 2:
            raise ConnectionResetError("Connection lost")
        if HOW == "process killed" and self._count > 2:
            os._exit(137)
        if HOW == "deaf":
            time.sleep(60)
        self._write("log", values=values)

    def finish(self, exit_code=0):
        if HOW == "never finishes":
            time.sleep(60)
        self._write("finish", exit_code=exit_code)


class Image(dict):
    def __init__(self, path):
        super().__init__(bytes=len(Path(path).read_bytes()))


class Summary(dict):
    def __init__(self, run):
        super().__init__({"record": 2} if run.resumed else {})
        self._run = run

    def update(self, values):
        self._run._write("summary", values=values)


def init(*, mode, settings, **asked):
    print("noise on standard output")
    print("noise on standard error", file=sys.stderr)
    if HOW == "crashes at once":
        os._exit(139)
    if HOW == "no key" and mode == "online":
        raise ValueError("No API key configured.\nUse `wandb login` to log in.")
    if HOW == "no network" and mode == "online":
        raise ConnectionError("dial tcp: lookup failed")
    if HOW == "black hole":
        time.sleep(60)
    return Run(mode, asked)


def teardown():
    pass
