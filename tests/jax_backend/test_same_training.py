"""On JAX and PyTorch, training gives what it gives on TensorFlow: a file for a worker."""

import pytest
from backend_cases import TRAININGS, check

NAMES = list(TRAININGS)


@pytest.mark.parametrize("name", NAMES)
def test_training(name, on_tensorflow):
    check(name, on_tensorflow[name])
