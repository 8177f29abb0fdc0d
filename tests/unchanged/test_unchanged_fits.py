"""Ten steps of `fit` give the weights that they gave when they were recorded."""

import numpy as np
import pytest
import small


@pytest.mark.parametrize("case", small.golden("fits")["cases"])
def test_ten_steps_give_the_recorded_weights(case, compare):
    recorded, found, exact = compare(case)
    if exact:
        assert found == recorded
        return
    # Another machine's rounding.
    assert list(found["logs"]) == list(recorded["logs"])
    for part in ("sums", "norms"):
        np.testing.assert_allclose(found[part], recorded[part], rtol=1e-5, atol=1e-5)
    for name, value in recorded["logs"].items():
        assert found["logs"][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
