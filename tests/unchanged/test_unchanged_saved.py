"""A distiller that an earlier version saved trains on to the recorded weights."""

import numpy as np
import pytest


@pytest.mark.parametrize("case", ["file", "weights"])
def test_saved_distiller_trains_on(case, compare):
    recorded, found, _ = compare(case)
    assert found["before"] == recorded["before"]
    assert found["logs"] == pytest.approx(recorded["logs"], rel=1e-5, abs=1e-6)
    for value, expected in zip(found["values"], recorded["values"], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
