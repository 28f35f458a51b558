"""The parts of the programme by name."""

from __future__ import annotations

from dataclasses import dataclass

from reliability import (
    crashes,
    damage,
    defects,
    disk,
    inputs,
    kills,
    leaks,
    rivals,
    stops,
    teams,
)
from reliability.workshop import Trials


@dataclass(frozen=True)
class Part:
    """A series of trials, and how many (kills, turns, ...; 0: a list of its own) by default."""

    about: str
    trials: Trials
    count: int = 0


PARTS: dict[str, Part] = {
    "kills": Part("random SIGKILLs of training runs", kills.trials, 300),
    "crashes": Part("death at every named place of the code", crashes.trials),
    "syscalls": Part("death at system calls that change files", crashes.strace_trials),
    "checkpoints": Part("damaged and foreign checkpoints", damage.trials),
    "workers": Part("faults of runs on several workers", teams.trials),
    "stops": Part("signals that ask to stop", stops.trials),
    "rivals": Part("two commands on one run folder", rivals.trials, 50),
    "inputs": Part("words that cannot be meant", inputs.trials),
    "disk": Part("full disks", disk.trials),
    "leaks": Part("what piles up over many kills and stops", leaks.trials, 50),
    "defects": Part("defects planted in the source", defects.trials),
}
