"""Exported files, training and saved distillers are what they were when they were recorded."""

import collections
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import small

GOLDEN = {name: small.golden(name) for name in ("exports", "fits", "saved")}
#: One case of each kind, which `make test` runs; `make test-long` runs the others.
SHORT = ("conv-micro-aware_int8", "soft_targets")


@pytest.fixture(scope="module")
def computed(request):
    """What is computed now, by name, in a process in which nothing else has been traced."""
    wanted = collections.defaultdict(list)
    for item in request.session.items:
        if item.path == request.path and "case" in getattr(item, "callspec", item).params:
            wanted[item.callspec.params["name"]].append(item.callspec.params["case"])
    arguments = [f"{name}={','.join(cases)}" for name, cases in wanted.items()]
    command = [sys.executable, str(small.HERE / "record.py"), "--print", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    lines = done.stdout.splitlines()[-len(wanted) :]
    return dict(zip(wanted, map(json.loads, lines), strict=True))


def every_case_of(name):
    """Runs a test for each recorded case, most of them among the long ones."""
    long = pytest.mark.long
    cases = [
        pytest.param(name, case, marks=[] if case in SHORT else long, id=case)
        for case in GOLDEN[name]["cases"]
    ]
    return pytest.mark.parametrize(("name", "case"), cases)


def compared(computed, name, case):
    """What was recorded, what was computed, and whether the two must be equal bit for bit.

    They must where packages and float arithmetic are the same as then.
    """
    recorded, found = GOLDEN[name], computed[name]
    exact = found["platform"] == recorded["platform"]
    return recorded["cases"][case], found["cases"][case], exact


@pytest.mark.parametrize("name", GOLDEN)
def test_every_case_is_recorded(name):
    assert list(importlib.import_module(name).CASES) == list(GOLDEN[name]["cases"])


@every_case_of("exports")
def test_file_has_the_recorded_bytes(name, case, computed):
    recorded, found, exact = compared(computed, name, case)
    if not exact:  # Another machine's rounding, or another converter.
        recorded, found = recorded["operators"], found["operators"]
    assert found == recorded


@every_case_of("fits")
def test_ten_steps_give_the_recorded_weights(name, case, computed):
    recorded, found, exact = compared(computed, name, case)
    if exact:
        assert found == recorded
        return
    # Another machine's rounding.
    assert list(found["logs"]) == list(recorded["logs"])
    for part in ("sums", "norms"):
        np.testing.assert_allclose(found[part], recorded[part], rtol=1e-5, atol=1e-5)
    for log, value in recorded["logs"].items():
        assert found["logs"][log] == pytest.approx(value, rel=1e-5, abs=1e-5), log


@every_case_of("saved")
def test_distiller_saved_by_an_earlier_version_trains_on(name, case, computed):
    recorded, found, exact = compared(computed, name, case)
    assert found["before"] == recorded["before"]
    assert found["logs"] == pytest.approx(recorded["logs"], rel=1e-5, abs=1e-6)
    # Adam magnifies another machine's rounding: it divides gradients by their size.
    atol = 1e-6 if exact else 1e-3
    for value, expected in zip(found["values"], recorded["values"], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=atol)
