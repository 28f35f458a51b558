"""``python -m resnet_repro.export run=RUN_DIR out=FILE``: the final weights of a finished run.

Writes a plain state dict, which ``load_state_dict`` takes as it is, or safetensors. The file also
says which net it is and how its images were prepared, so that ``resnet_repro.evaluate
weights=FILE format=ours`` needs nothing else.

Exit codes: 0 done, 1 a defect of this program, 2 bad options, 4 no good final checkpoint.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_repro.evaluation.words import help_text, parse
from resnet_repro.exits import explained
from resnet_repro.options import ConfigError, one_of, option
from resnet_repro.runs.atomic import write_atomic

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Options:
    """Everything the command line can say."""

    run: str | None = option(None, "folder of a finished run")
    out: str | None = option(None, "file to write; an older one is replaced")
    format: str = option("state_dict", "of the file", one_of("state_dict", "safetensors"))


def check(options: Options) -> tuple[Path, Path]:
    """Refuse what can be refused without torch; return the run folder and the file.

    Raises:
        ConfigError: one line naming the key, the value and what is allowed.
    """
    if options.run is None or options.out is None:
        raise ConfigError(f"{'run' if options.run is None else 'out'} is not set; see --help")
    run, out = Path(options.run), Path(options.out)
    if not run.is_dir():
        raise ConfigError(f"run={run}: must be an existing folder")
    if not out.parent.is_dir() or out.is_dir():
        raise ConfigError(f"out={out}: must be a file in an existing folder")
    safe = options.format == "safetensors"
    if safe and importlib.util.find_spec("safetensors") is None:
        raise ConfigError(
            "format=safetensors: needs the package safetensors, which is not installed; "
            "install it or use format=state_dict"
        )
    if safe != (out.suffix == ".safetensors"):
        raise ConfigError(f"out={out}: must end in .safetensors exactly if format=safetensors")
    return run, out


def packed(state: Mapping[str, Tensor], about: Mapping[str, Any], form: str) -> bytes:
    """Return the bytes of a file of ``state`` that also says what ``about`` says."""
    import io

    import torch

    from resnet_repro.evaluation.weights import ABOUT

    # As any program lays tensors out; ours lie channels last in memory.
    tensors = OrderedDict(
        (name, value.detach().cpu().contiguous()) for name, value in state.items()
    )
    said = json.dumps(about)
    if form == "safetensors":
        save = importlib.import_module("safetensors.torch").save
        return bytes(save(tensors, metadata={ABOUT: said}))
    # torch's own table of modules goes with every state dict; load_state_dict passes over entries
    # it does not know.
    tensors._metadata = OrderedDict({"": {"version": 1, ABOUT: said}})  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def export(run: Path, out: Path, form: str) -> str:
    """Write the file; return its SHA-256.

    Raises:
        RunFolderError: no run there, or it is not finished.
        WeightsError: its final checkpoint is missing or damaged.
        ConfigError: the file cannot be written.
    """
    import hashlib

    from resnet_repro.evaluation.subjects import about_run, from_run
    from resnet_repro.runs.folder import RunFolder

    subject = from_run(run)
    config = subject.config
    assert config is not None
    about = about_run(config, RunFolder(run), config.recipe.max_iters)
    data = packed(subject.net.state_dict(), about, form)
    try:
        write_atomic(out, lambda file: file.write(data))
    except OSError as error:
        raise ConfigError(f"out={out}: cannot be written ({error.strerror})") from error
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    """Read the words, write the file, say what it is."""
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(f"{__doc__.strip()}\n\nOptions [default]:\n{help_text(Options)}")
        raise SystemExit(0 if words else 2)
    with explained():
        options = parse(Options, words)
        run, out = check(options)
        print(f"{out}  sha256 {export(run, out, options.format)}")


if __name__ == "__main__":
    main()
