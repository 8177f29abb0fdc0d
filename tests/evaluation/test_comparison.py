import keras
import numpy as np
import pytest
from sklearn import metrics

import keras_distill
from keras_distill.evaluation import compare


@pytest.fixture(scope="module")
def models(digits):
    """A teacher and a student for the digits, trained for a moment."""
    x, y = digits
    keras.utils.set_random_seed(0)

    def train(units):
        model = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Flatten(), *(keras.layers.Dense(n, "relu")
             for n in units), keras.layers.Dense(10)]
        )  # fmt: skip
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        model.fit(x[:1200], y[:1200], epochs=3, batch_size=32, verbose=0)
        return model

    return {"teacher": train([64]), "student": train([8])}


@pytest.fixture(scope="module")
def held_out(digits):
    x, y = digits
    return x[1200:], y[1200:]


def test_classification(models, held_out):
    x, y = held_out
    teacher, student = compare(models, held_out).rows
    predicted = {name: model.predict(x, verbose=0).argmax(-1) for name, model in models.items()}
    assert student["accuracy"] == metrics.accuracy_score(y, predicted["student"])
    assert student["agreement"] == np.mean(predicted["student"] == predicted["teacher"])
    assert teacher["agreement"] == 1
    assert student["parameters"] == 65 * 8 + 9 * 10
    assert student["multiply_accumulates"] == 64 * 8 + 8 * 10
    assert student["bytes"] == 4 * (65 * 8 + 9 * 10)


def test_exported_files_run_in_their_own_runtimes(models, held_out):
    x, y = held_out[0][:100], held_out[1][:100]
    micro = keras_distill.tflite.convert(
        models["student"], target="micro", quantization="int8", calibration=x
    )
    phone = keras_distill.tflite.load(micro.tflite, target="android")
    rows = compare({**models, "micro": micro, "phone": phone}, (x, y)).rows
    for row, file in zip(rows[2:], (micro, phone), strict=True):
        assert row["accuracy"] == metrics.accuracy_score(y, file.predict(x).argmax(-1))
        assert row["bytes"] == len(file.tflite)
        assert row["parameters"] == models["student"].count_params()
        assert row["multiply_accumulates"] == 64 * 8 + 8 * 10


def test_the_table_prints(models, held_out):
    text = str(compare(models, held_out))
    assert "student" in text
    assert "multiply accumulates" in text
    assert "610" in text
