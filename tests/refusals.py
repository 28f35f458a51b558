"""A refusal: an error of one line."""

import pytest

from resnet_repro.data import DataError


def refused(call, *args, match, kind=DataError, **options):
    """Return the line in which ``call(*args, **options)`` raises an error of that kind."""
    with pytest.raises(kind, match=match) as caught:
        call(*args, **options)
    line = str(caught.value)
    del caught  # its traceback would keep what the call left, such as processes
    assert line.isprintable()  # in one line
    return line
