"""On JAX, training gives what it gives on TensorFlow: a file, and so a worker, of its own."""

import pytest
from backend_cases import TRAININGS, check

NAMES = list(TRAININGS)


@pytest.mark.parametrize("name", NAMES)
def test_training(name, on_tensorflow):
    check(name, on_tensorflow[name])
