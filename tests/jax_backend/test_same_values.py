"""On JAX and PyTorch, losses give what they give on TensorFlow, as does all that isn't training."""

import pytest
from backend_cases import CASES, TRAININGS, check

NAMES = [name for name in CASES if name not in TRAININGS]


@pytest.mark.parametrize("name", NAMES)
def test_value(name, on_tensorflow):
    check(name, on_tensorflow[name])
