"""``python -m resnet_repro.evaluate``: count the errors of weights or finished runs.

    weights=FILE format=akamaster|torchvision|ours     a weights file, ours or other people's
    run=RUN_DIR                                        the final net of a finished run
    data=imagenet|folder data.root=FOLDER              on the pictures FOLDER/val/<class>/*

Several, separated by commas, are tested as an ensemble. Nothing but numbers is ever taken from a
weights file. The result is printed and written to results/evaluations/<name>.json.

Exit codes: 0 done, 1 a defect of this program, 2 bad options, 3 bad data, 4 weights refused.
"""

from __future__ import annotations

import sys

from resnet_repro.evaluation.command import run_command
from resnet_repro.evaluation.options import Options, check, results_folder


def main() -> None:
    """Run the command line."""
    run_command(__doc__, Options, evaluate)


def evaluate(options: Options) -> None:
    """Count, print the table, write the file: the number is shown even if it cannot be written."""
    check(options)
    from resnet_repro.evaluation import results, session

    result = session.evaluate(options)
    print(results.table(result), flush=True)
    for note in result["notes"]:
        print(f"note: {note}", file=sys.stderr)
    path = results.write(results_folder(options), result)
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
