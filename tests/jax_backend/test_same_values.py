"""On JAX, losses and training give what they give on TensorFlow."""

import numpy as np
import pytest
from backend_cases import CASES

#: Relative and absolute tolerance, where it is another. Rounding is bit for bit the same; sums of
#: a convolution are not, after which single values are rounded to a neighbor.
TOLERANCES = {
    "rounding": (0, 0),
    "trained_quantize_aware": (0.02, 0),
    "trained_quantize_aware_sigmoid": (0.02, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_value(name, on_tensorflow):
    expected, got = on_tensorflow[name], CASES[name]()
    assert got.keys() == expected.keys()
    rtol, atol = TOLERANCES.get(name, (1e-4, 1e-5))
    for key, values in expected.items():
        np.testing.assert_allclose(got[key], values, rtol=rtol, atol=atol, err_msg=key)
