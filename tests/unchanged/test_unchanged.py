"""Exported files, training and saved distillers are what they were when they were recorded."""

import json
import subprocess
import sys

import numpy as np
import pytest
import small

GOLDEN = {name: small.golden(name) for name in ("exports", "fits", "saved")}


@pytest.fixture(scope="module")
def computed():
    """What is computed now, by name, in a process in which nothing else has been traced."""
    command = [sys.executable, str(small.HERE / "record.py"), "--print", *GOLDEN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    lines = done.stdout.splitlines()[-len(GOLDEN) :]
    return dict(zip(GOLDEN, map(json.loads, lines), strict=True))


def compared(computed, name, case):
    """What was recorded, what was computed, and whether the two must be equal bit for bit.

    They must where packages and float arithmetic are the same as then.
    """
    recorded, found = GOLDEN[name], computed[name]
    exact = found["platform"] == recorded["platform"]
    return recorded["cases"][case], found["cases"][case], exact


@pytest.mark.parametrize("name", GOLDEN)
def test_every_case_is_recorded(name, computed):
    assert list(computed[name]["cases"]) == list(GOLDEN[name]["cases"])


@pytest.mark.parametrize("case", GOLDEN["exports"]["cases"])
def test_file_has_the_recorded_bytes(case, computed):
    recorded, found, exact = compared(computed, "exports", case)
    if not exact:  # Another machine's rounding, or another converter.
        recorded, found = recorded["operators"], found["operators"]
    assert found == recorded


@pytest.mark.parametrize("case", GOLDEN["fits"]["cases"])
def test_ten_steps_give_the_recorded_weights(case, computed):
    recorded, found, exact = compared(computed, "fits", case)
    if exact:
        assert found == recorded
        return
    # Another machine's rounding.
    assert list(found["logs"]) == list(recorded["logs"])
    for part in ("sums", "norms"):
        np.testing.assert_allclose(found[part], recorded[part], rtol=1e-5, atol=1e-5)
    for name, value in recorded["logs"].items():
        assert found["logs"][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("case", GOLDEN["saved"]["cases"])
def test_distiller_saved_by_an_earlier_version_trains_on(case, computed):
    recorded, found, _ = compared(computed, "saved", case)
    assert found["before"] == recorded["before"]
    assert found["logs"] == pytest.approx(recorded["logs"], rel=1e-5, abs=1e-6)
    for value, expected in zip(found["values"], recorded["values"], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
