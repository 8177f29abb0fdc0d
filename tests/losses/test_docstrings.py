"""The examples in the losses' docstrings run as printed."""

import doctest

import keras
import numpy as np
import pytest

import keras_distill
from keras_distill import losses


@pytest.mark.parametrize("name", losses.__all__)
def test_example(name):
    names = {"keras": keras, "keras_distill": keras_distill, "np": np}
    tests = doctest.DocTestFinder(recurse=False).find(getattr(losses, name), name, globs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
    # The base class has none.
    assert runner.tries > 0 or name == "DistillationLoss"
