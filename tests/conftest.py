"""Shared by all tests: torch on few threads, so that tests side by side do not starve."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
