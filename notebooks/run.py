"""Run the notebooks top to bottom and keep what they show: ``make notebooks``.

``python notebooks/run.py [notebooks/NAME.ipynb ...]`` refreshes the ones that are named.
What is kept is small and says nothing of this machine or this moment but for what cells print.
"""

import argparse
import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from resnet_repro.analysis.style import with_palette
from resnet_repro.paths import expand
from resnet_repro.runs.atomic import write_text_atomic

FOLDER = Path("notebooks")
SECONDS = 600  # for one cell


def execute(path: Path) -> Any:
    """Run a notebook in its own folder with this Python; return it with its new outputs.

    Raises:
        CellExecutionError: a cell raised; the message has the cell and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=SECONDS, resources=where)
    client.record_timing = False
    with tempfile.TemporaryDirectory() as place:  # sockets in a folder: needs no network
        kernel = client.create_kernel_manager()
        kernel.transport, kernel.ip = "ipc", f"{place}/kernel"
        client.execute()
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Leave out what is of this machine or this moment."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook.metadata = nbformat.from_dict(about)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            output.pop("metadata", None)
            if output.output_type == "stream":
                output.name = "stdout"  # progress is no error, and is not to look like one
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = nbformat.from_dict({})
                if "image/png" in output.data:
                    png = with_palette(io.BytesIO(base64.b64decode(output.data["image/png"])))
                    output.data["image/png"] = base64.b64encode(png).decode("ascii")
                    output.data["text/plain"] = "<Figure>"
    return notebook


def main() -> None:
    """Refresh the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description="Run notebooks and keep their outputs.")
    parser.add_argument("paths", nargs="*", type=expand, help="default: all of notebooks/")
    for path in parser.parse_args().paths or sorted(FOLDER.glob("*.ipynb")):
        notebook = execute(path)
        write_text_atomic(path, nbformat.writes(notebook) + "\n")
        print(f"{path} {path.stat().st_size / 1024:.0f} KiB", file=sys.stderr)


if __name__ == "__main__":
    main()
