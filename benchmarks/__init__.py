"""Speed of this program against what others use: ``python -m benchmarks`` (``make bench``).

``python -m benchmarks training limit`` measures parts of it; ``python -m benchmarks.page`` writes
``docs/SPEED.md`` and its plot from ``results/bench`` without measuring.
"""

from pathlib import Path

BENCH = Path("results/bench")  # folder of what was measured
