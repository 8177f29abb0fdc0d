import json
import subprocess
import sys

import pytest
import small


@pytest.fixture(scope="module")
def compare(request):
    """What was recorded and what is computed now, in a process of its own.

    A function of a case's name that gives the two, and whether the same packages and the same
    float arithmetic as then make them equal bit for bit.
    """
    name = request.module.__name__.removeprefix("test_unchanged_")
    recorded = small.golden(name)
    command = [sys.executable, str(small.HERE / "record.py"), "--print", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert list(found["cases"]) == list(recorded["cases"])
    exact = found["platform"] == recorded["platform"]

    def compare(case):
        return recorded["cases"][case], found["cases"][case], exact

    return compare
