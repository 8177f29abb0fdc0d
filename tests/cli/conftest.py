"""Digits as an NPZ file, and small nets in a module, in a working directory of their own."""

import numpy as np
import pytest

NETS = """
import keras


def net(width, shape, outputs):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Flatten(),
            keras.layers.Dense(width, activation="relu", name="hidden"),
            keras.layers.Dense(outputs),
        ]
    )


def large(shape, outputs):
    return net(64, shape, outputs)


def small(shape, outputs):
    return net(8, shape, outputs)


def reader(shape, outputs):
    return keras.Sequential(
        [
            keras.Input(shape, dtype="string"),
            keras.layers.TextVectorization(output_mode="count", vocabulary=["red", "green"]),
            keras.layers.Dense(outputs),
        ]
    )


def scaled(x, y):
    return x / 16, y


def shifted(x, y):
    return x, y + 5


def nothing(shape, outputs):
    return None
"""


@pytest.fixture(scope="session")
def workplace(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    (folder / "nets_for_test.py").write_text(NETS)
    np.savez(folder / "digits.npz", x=digits[0], y=digits[1])
    return folder


# Of a module, so that fixtures of a module run inside too.
@pytest.fixture(scope="module", autouse=True)
def _inside(workplace):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        yield


@pytest.fixture(scope="session")
def trained(workplace):
    """The folder of a finished run: teacher, baseline and student on the digits."""
    from keras_distill import cli

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        arguments = ["--data=digits.npz", "--teacher=nets_for_test:large", "--batch_size=64"]
        arguments += ["--student=nets_for_test:small", "--epochs=8", "--learning_rate=0.01"]
        arguments += ["--baseline", "--output=run", "--verbosity=-1"]
        assert cli.main(["train", *arguments]) == 0
    return workplace / "run"
