"""The benchmark of CIFAR-100's pairs: the papers' networks, and all of it on a slice."""

import math
import os
import pathlib
import subprocess
import sys

import keras
import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def cifar100(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("KERAS_BACKEND", keras.backend.backend())
    import cifar100

    return cifar100


@pytest.mark.parametrize(
    ("depth", "widths", "weights"),
    [(20, (16, 16, 32, 64), 278_324), (8, (32, 64, 128, 256), 1_233_540)],
    ids=["ResNet-20", "ResNet-8x4"],
)
def test_students_have_as_many_weights_as_those_of_papers(cifar100, depth, widths, weights):
    """Those of the code of arXiv:1910.10699, with 100 classes."""
    model = cifar100.resnet(depth, widths, 100)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == weights


def test_weights_decay_as_by_an_optimizer_with_l2(cifar100):
    """The gradient of the penalty is `decay` times the weight, as in PyTorch's SGD."""
    model = cifar100.resnet(8, (4, 4, 8, 8), 10, decay=0.01)
    expected = sum(float((v.numpy() ** 2).sum()) for v in model.trainable_variables) * 0.01 / 2
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.nightly
def test_a_slice_runs_on_jax_and_goes_on_where_it_was(data_dir, tmp_path):
    pytest.importorskip("jax")
    command = [sys.executable, BENCHMARKS / "cifar100.py", "--small", "--seeds=1"]
    command += [f"--data={data_dir}", f"--runs={tmp_path}"]
    # Programs that are compiled fast rather than run fast.
    quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": quick}
    outputs = [
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        for _ in range(2)
    ]
    tables = ["\n".join(x for x in out.splitlines() if x.startswith("|")) for out in outputs]
    # Teacher, labels and three methods of two pairs, below two lines of header.
    assert len(tables[0].splitlines()) == 12
    assert tables[0] == tables[1]
    assert "seed 0" in outputs[0]
    assert "seed 0" not in outputs[1]
