"""Where trials are done, and the undisturbed runs they are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from reliability.processes import begin, finish, say
from reliability.record import Outcome, Record
from reliability.subject import LONG, VARIANTS, Reference, fingerprint, small_job


class NothingToCompareError(RuntimeError):
    """The undisturbed run did not come to its end: no trial can be judged."""


@dataclass(frozen=True)
class Trial:
    """One way of hurting a run; ``do`` gets an empty folder and says what came of it."""

    key: str
    do: Callable[[Path], Outcome]


@dataclass
class Workshop:
    """Where the trials of a part are done.

    ``count`` is how many of what the part counts are wanted (0: all), ``record`` what was found so
    far, ``scratch`` a folder to work in.
    """

    scratch: Path
    count: int
    record: Record
    _made: dict[tuple[str, ...], Reference] = field(default_factory=dict)

    def variant(self, name: str) -> Reference:
        """The undisturbed run of a variant."""
        return self.undisturbed(*VARIANTS[name])

    def undisturbed(self, *words: str) -> Reference:
        """The undisturbed small run with ``words``, done when it is first asked for."""
        if words not in self._made:
            job = small_job(self._folder(), *words)
            begin(time.monotonic).join()  # the first fork waits for its server's imports
            began = time.monotonic()
            if code := finish(job):
                raise NothingToCompareError(f"{job.folder.path}: {code}")
            seconds = time.monotonic() - began
            self._made[words] = Reference(fingerprint(job.folder), seconds)
        return self._made[words]

    def command(self) -> Reference:
        """As :meth:`undisturbed`, a longer run by the real command."""
        key = ("command",)
        if key not in self._made:
            job = small_job(self._folder(), *LONG)
            began = time.monotonic()
            done = say(*job.words)
            if done.returncode != 0:
                raise NothingToCompareError(done.stderr)
            self._made[key] = Reference(fingerprint(job.folder), time.monotonic() - began)
        return self._made[key]

    def _folder(self) -> Path:
        return self.scratch / "undisturbed" / str(len(self._made))


Trials = Callable[[Workshop], Iterator[Trial]]
