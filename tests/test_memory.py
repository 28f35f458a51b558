"""What a step frees stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

AGAIN = """
import resource, sys
import torch
from resnet_repro.config_groups import TrainerConfig
from resnet_repro.training.device import set_up

if sys.argv[1] == "set up":
    set_up(TrainerConfig(device="cpu"))
for _ in range(10):  # until the blocks lie where they stay
    torch.ones(64 << 20, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64 << 20, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Pages that the system had to bring for a block as large as one freed a moment ago."""
    words = [sys.executable, "-c", AGAIN, how]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    assert faults("set up") < 100 < faults("as it comes")
