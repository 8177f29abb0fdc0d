"""Goals are met by measuring, or refused with what is left."""

import keras
import numpy as np
import pruning_zoo as zoo
import pytest
from keras import layers

from keras_distill import pruning, tflite
from keras_distill.evaluation import multiply_accumulates
from keras_distill.evaluation.candidates import as_candidate
from keras_distill.evaluation.latency import latencies
from keras_distill.pruning import goals
from keras_distill.pruning.goals import Goal


@pytest.fixture(scope="module")
def models():
    return {x.__name__: zoo.with_random_weights(x()) for x in (zoo.stack, zoo.residual)}


@pytest.mark.parametrize("share", [0.75, 0.3])
def test_multiply_accumulates_are_met_and_hardly_more_than_that(models, share):
    model = models["residual"]
    smaller = pruning.prune(model, macs=share, importance="scale")
    found = multiply_accumulates(smaller) / multiply_accumulates(model)
    assert 0.85 * share < found <= share


@pytest.mark.long
def test_bytes_of_the_file_are_met(models):
    x = zoo.inputs(models["stack"], 8)
    export = {"target": "micro", "quantization": "int8", "calibration": x}
    smaller = pruning.prune(models["stack"], flash="4.4KB", export=export, importance="l1")
    artifact = tflite.convert(smaller, **export)
    assert 4000 < artifact.report["bytes"] <= 4.4 * 1024
    artifact.verify(x)


@pytest.mark.long
def test_arena_that_cannot_be_met(models):
    x = zoo.inputs(models["stack"], 8)
    export = {"target": "micro", "quantization": "int8", "calibration": x}
    with pytest.raises(tflite.BudgetError, match="`arena` can't be met: 100 allowed"):
        pruning.prune(models["stack"], arena=100, export=export, importance="l1")


@pytest.mark.long
def test_a_latency_is_met_by_measuring_the_file(monkeypatch):
    """A file that always takes as long as it has multiply-accumulates; what is real fails."""
    inputs = keras.Input((64,))
    hidden = layers.Dense(64, "relu", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(hidden))
    with pytest.raises(tflite.BudgetError, match=r"`latency` can't be met: 1e-06 allowed.*scores"):
        pruning.prune(model, latency=1e-6, export={}, importance="l1")

    def macs(files, x, runs):
        return {name: [file.cost(x).multiply_accumulates] for name, file in files.items()}

    monkeypatch.setattr(goals, "latencies", macs)
    smaller = pruning.prune(model, latency=66 * 40, export={}, importance="l1")
    assert 38 <= smaller.get_layer("hidden").units <= 40


@pytest.mark.long
def test_a_latency_is_met_on_this_host():
    """Half of the large model's, with room for what else the host does; files take turns."""
    inputs = x = keras.Input((32, 32, 16))
    for _ in range(2):
        x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))

    def medians(**models):
        files = {n: as_candidate(tflite.convert(m), n) for n, m in models.items()}
        return {n: np.median(t) for n, t in latencies(files, np.zeros(1), 200).items()}

    goal = medians(large=model)["large"] / 2
    smaller = pruning.prune(model, latency=goal, export={}, importance="l1")
    found = medians(large=model, smaller=smaller)
    assert found["smaller"] / found["large"] < 0.7


def test_multiply_accumulates_that_cannot_be_met(models):
    with pytest.raises(tflite.BudgetError, match=r"`macs` can't be met.*scores: it is an output"):
        pruning.prune(models["stack"], macs=10, importance="l1")


def test_a_goal_of_a_model_in_which_nothing_may_leave():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="scores")])
    for importance in ("l1", "scale"):
        with pytest.raises(tflite.BudgetError, match=r"`macs` can't be met.*scores: it is an"):
            pruning.prune(model, macs=np.float32(0.5), importance=importance)
    assert pruning.prune(model, macs=1.0, importance="l1").count_params() == 10


def test_all_goals_hold_for_the_same_model(monkeypatch):
    """A goal that is met with fewer units may be missed with more."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="hidden"), layers.Dense(2)])
    flash = {8: 100, 7: 80, 6: 40, 5: 40, 4: 60, 3: 40, 2: 40, 1: 40}
    measured = Goal.measured

    def fake(goal, model):
        width = model.get_layer("hidden").units
        return flash[width] if goal.name == "flash" else measured(goal, model)

    monkeypatch.setattr(Goal, "measured", fake)
    smaller = pruning.prune(model, macs=0.5, flash=50, export={}, importance="l1")
    assert smaller.get_layer("hidden").units == 3
