"""What goes wrong with data, in the user's words."""

from __future__ import annotations


class DataError(Exception):
    """Data that cannot be had or are not what they should be.

    The message is one line that says what is wrong and what to do.
    """


class UnwritableError(DataError):
    """The folder for data may not be written; what lies in it may be usable all the same."""


class StoppedError(DataError):
    """Getting data was stopped by a signal: nothing else is to be tried."""
