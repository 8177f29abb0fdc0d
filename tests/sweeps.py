"""Sweeps over many cases, of which `make test` runs one of each kind."""

import pytest


def rest_is_long(cases, short):
    """The cases of a `parametrize`: those in `short` as they are, the others marked `long`."""
    short = list(short)
    missing = [case for case in short if case not in cases]
    assert not missing, missing
    return [
        case
        if case in short
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
        for case in cases
    ]
