import math

import keras
import numpy as np
import pruning_zoo as zoo
import pytest
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill import pruning, quantization, tflite
from keras_distill.evaluation import multiply_accumulates
from keras_distill.pruning import structured
from keras_distill.pruning.goals import Goal, shares
from keras_distill.pruning.gradual import zero_units
from keras_distill.pruning.importance import importances
from keras_distill.pruning.removal import without
from keras_distill.pruning.step import Role
from keras_distill.pruning.structure import Structure

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def models():
    return {name: zoo.with_random_weights(make()) for name, make in zoo.MODELS.items()}


@pytest.fixture
def network():
    inputs = keras.Input((4,))
    x = layers.Dense(3, activation="relu", name="hidden")(inputs)
    return zoo.with_random_weights(keras.Model(inputs, layers.Dense(2, name="scores")(x)))


def zeroed(structure, units):
    """Sets all weights that make the units to 0."""
    for weight in structure.weights:
        value = np.copy(keras.ops.convert_to_numpy(weight.variable))
        for place, axis in enumerate(weight.axes):
            if axis is not None and axis.role is Role.MAKES:
                leaving = np.isin(structure.units.of(axis.channels), units)
                value[(slice(None),) * place + (leaving,)] = 0
        weight.variable.assign(value)


@pytest.mark.parametrize("share", rest_is_long([0.25, 0.5, 0.75], [0.5]))
@pytest.mark.parametrize("name", zoo.MODELS)
def test_units_whose_weights_are_0_leave_without_a_trace(models, name, share, rng):
    structure = Structure(models[name])
    order = structured.leaving_order(structure, rng.uniform(size=len(structure.units)))
    units = order[: max(1, round(share * len(order)))]
    before = models[name].get_weights()
    zeroed(structure, units)
    x = zoo.inputs(models[name])
    expected = models[name](x, training=False)
    smaller = without(models[name], structure, units)
    models[name].set_weights(before)
    assert type(smaller) is type(models[name])
    assert smaller.count_params() < models[name].count_params()
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        smaller(x, training=False),
        expected,
    )


@pytest.mark.parametrize(
    "name",
    [
        name if name == "siamese" else pytest.param(name, marks=pytest.mark.nightly)
        for name in zoo.MODELS
    ],
)
def test_smaller_models_are_saved_and_trained(models, name, tmp_path):
    before = models[name].get_weights()
    smaller = pruning.prune(models[name], macs=0.5, importance="l1")
    x = zoo.inputs(smaller, 8)
    path = tmp_path / "smaller.keras"
    smaller.save(path)
    loaded = keras.models.load_model(path)
    keras.tree.map_structure(
        np.testing.assert_array_equal, loaded(x, training=False), smaller(x, training=False)
    )
    y = keras.tree.map_structure(np.zeros_like, smaller(x, training=False))
    smaller.compile("adam", "mse")
    smaller.fit(x, y, verbose=0)
    assert [x.name for x in smaller.layers] == [x.name for x in models[name].layers]
    for old, new in zip(before, models[name].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(set(zoo.MODELS) - {"recurrent"}))
def test_files_of_smaller_models_are_proven(name):
    """Trained before and after: integers of outputs that hardly differ prove little."""
    model = zoo.with_random_weights(zoo.MODELS[name]())
    x = zoo.inputs(model, 64)
    y = keras.tree.map_structure(
        lambda z: (z - np.mean(z, 0)) / (np.std(z, 0) + 1e-3), model.predict(x, verbose=0)
    )

    def fit(model):
        keras.utils.set_random_seed(0)
        model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False)
        model.fit(x, y, batch_size=64, epochs=60, verbose=0)

    fit(model)
    for share in (0.75, 0.5, 0.25):
        if (name, share) == ("broadcast", 0.25):  # 74 of its 256 stay.
            with pytest.raises(tflite.BudgetError, match=r"64 allowed, 256 .* 74 without all"):
                pruning.prune(model, [(x, y)], macs=share)
            continue
        smaller = pruning.prune(model, [(x, y)], macs=share)
        fit(smaller)
        tflite.convert(smaller, quantization="int8", calibration=x).verify(x)


def test_sums_leave_together():
    """A residual sum has as many channels everywhere; what is between has its own."""
    model = zoo.with_random_weights(zoo.residual())
    structure = Structure(model)
    unit = {path: structure.units.of(channels) for path, channels in structure.made.items()}
    np.testing.assert_array_equal(unit["stem"], unit["second_0"])
    np.testing.assert_array_equal(unit["stem"], unit["second_1"])
    assert not set(unit["stem"]) & set(unit["first_0"])
    smaller = without(model, structure, [*unit["stem"][:3], *unit["first_0"][:5]])
    filters = {x.name: x.filters for x in smaller.layers if hasattr(x, "filters")}
    assert filters == {"stem": 5, "first_0": 7, "second_0": 5, "first_1": 12, "second_1": 5}


def test_groups_lose_the_same_places():
    structure = Structure(zoo.grouped())
    groups = structure.units.of(structure.made["groups"]).reshape(4, 4)
    assert (groups == groups[0]).all()


def test_heads_leave(models):
    structure = Structure(models["transformer"])
    heads = structure.units.of(structure.made["attention (heads)"])
    smaller = without(models["transformer"], structure, heads[1:3])
    assert smaller.get_layer("attention").num_heads == 2
    old, new = (m.get_layer("attention").query_dense for m in (models["transformer"], smaller))
    np.testing.assert_array_equal(new.kernel, old.kernel.numpy()[:, [0, 3]])


def test_what_stays_whole_is_named(models):
    reasons = pruning.kept_whole(models["transformer"])
    assert reasons["words"] == (
        "'norm' (LayerNormalization) computes its statistics over all channels"
    )
    assert "wide" not in reasons


def test_layers_without_a_rule_are_left_alone(rng):
    class Doubled(layers.Layer):
        def call(self, x):
            return 2 * x

    inputs = keras.Input((4,))
    x = layers.Dense(8, activation="relu", name="before")(inputs)
    x = Doubled(name="doubled")(x)
    x = layers.Dense(8, activation="relu", name="after")(x)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(x))
    assert pruning.kept_whole(model) == {
        "before": "'doubled' (Doubled) has no rule, so that it keeps all that it reads and makes",
        "scores": "it is an output of the model",
    }
    smaller = pruning.prune(model, macs=0.8, importance="l1")
    assert smaller.get_layer("before").units == 8
    assert smaller.get_layer("after").units < 8


def test_values_that_are_not_0_stay():
    """A sigmoid gives 0.5 where its weights are 0."""
    inputs = keras.Input((4,))
    x = layers.Dense(8, activation="sigmoid", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(x))
    reason = "'scores' (Dense) reads values that aren't 0 where their weights are"
    assert pruning.kept_whole(model)["hidden"] == reason


# Importance.


def scores(network, kind, model=None, data=None):
    structure = Structure(network)
    units = structure.units.of(structure.made["hidden"])
    return importances(structure, kind, model, data)[units]


def test_l1_is_relative_to_the_mean_of_the_layer(network):
    sums = np.abs(network.get_layer("hidden").get_weights()[0].astype("float64")).sum(0)
    np.testing.assert_allclose(scores(network, "l1"), sums / sums.mean(), rtol=1e-12)


def test_scale_is_that_of_batch_normalization(models):
    structure = Structure(models["stack"])
    first, second = (structure.units.of(structure.made[name]) for name in ("first", "second"))
    found = importances(structure, "scale", None, None)
    gamma = np.abs(models["stack"].layers[2].gamma.numpy().astype("float64"))
    np.testing.assert_allclose(found[first], gamma / gamma.mean(), rtol=1e-12)
    assert np.isinf(found[second]).all()


def loss_without(network, unit, loss):
    """The loss where a hidden unit is not read."""
    kernel = network.get_layer("scores").kernel
    value = kernel.numpy()
    kernel.assign(value * (np.arange(3) != unit)[:, None])
    result = float(loss())
    kernel.assign(value)
    return result


def test_taylor_is_the_squared_change_of_a_linear_loss(network, rng):
    """To first order is exactly, where the loss is linear in the outputs."""
    batches = [rng.standard_normal((5, 4)).astype("float32") for _ in range(2)]
    network.compile(loss=lambda y, y_pred: keras.ops.mean(y_pred * y, axis=-1))
    y = rng.standard_normal((5, 2)).astype("float32")
    expected = np.zeros(3)
    for x in batches:

        def loss(x=x):
            return keras.ops.mean(network(x) * y)

        before = float(loss())
        expected += [(loss_without(network, i, loss) - before) ** 2 / 2 for i in range(3)]
    found = scores(network, "taylor", network, [(x, y) for x in batches])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_taylor_follows_the_distillation_loss(network, rng):
    teacher = zoo.with_random_weights(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))

    def squares(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    distiller = keras_distill.Distiller(network, teacher, squares, alpha=0.0)
    distiller.compile("adam")
    x = rng.standard_normal((5, 4)).astype("float32")
    hidden = np.asarray(network.get_layer("hidden")(x), "float64")
    kernel = network.get_layer("scores").kernel.numpy().astype("float64")
    # The gradient of the mean of squares by a hidden unit, times the unit.
    error = np.asarray(network(x), "float64") - np.asarray(teacher(x), "float64")
    change = (2 / 2 * error @ kernel.T * hidden).mean(0)
    found = scores(network, "taylor", distiller, [(x, None)])
    np.testing.assert_allclose(found, change**2, rtol=1e-4)


def test_units_cost_what_their_leaving_saves(network):
    structure = Structure(network)
    (unit, *_) = structure.units.of(structure.made["hidden"])
    cost = shares(structure, [Goal("macs", 0.5)])[unit]
    before = multiply_accumulates(network)
    after = multiply_accumulates(without(network, structure, [unit]))
    np.testing.assert_allclose(cost, (before - after) / before, rtol=1e-12)


@pytest.mark.long
def test_what_matters_little_to_the_loss_leaves_first(split):
    keras.utils.set_random_seed(0)
    (x, y), test = split
    model = zoo.stack()
    model.compile(keras.optimizers.Adam(3e-3), CROSSENTROPY)
    model.fit(x, y, epochs=3, batch_size=32, verbose=0)
    structure = Structure(model)
    batches = [(x[i : i + 100], y[i : i + 100]) for i in range(0, 400, 100)]
    found = importances(structure, "taylor", model, batches)
    lost = []
    for sign in (1, -1):
        order = structured.leaving_order(structure, sign * np.nan_to_num(found, posinf=1e9))
        smaller = without(model, structure, order[:12])
        lost.append(float(CROSSENTROPY(test[1], smaller(test[0]))))
    assert lost[0] < lost[1]


def units_of_layers(model):
    structure = Structure(model)
    return {path: len(np.unique(structure.units.of(x))) for path, x in structure.made.items()}


def test_each_layer_keeps_a_share_of_its_units(models):
    """Without one, some layer loses more."""
    before = units_of_layers(models["residual"])
    for share in (0.0, 0.5):
        smaller = pruning.prune(models["residual"], macs=0.35, importance="l1", least_share=share)
        left = units_of_layers(smaller)
        keeps = [left[path] >= math.ceil(0.5 * count) for path, count in before.items()]
        assert all(keeps) == (share == 0.5)


def test_a_share_that_is_a_whole_number_of_units():
    """0.55 * 100 is greater than 55 in floating point."""
    dense = [layers.Dense(100), layers.Dense(2)]
    structure = Structure(keras.Sequential([keras.Input((3,)), *dense]))
    order = structured.leaving_order(structure, np.ones(len(structure.units)), 0.55)
    assert len(order) == 45


def test_a_share_of_units_that_is_too_large_for_a_goal(models):
    with pytest.raises(tflite.BudgetError, match="`macs` can't be met"):
        pruning.prune(models["stack"], macs=0.3, importance="l1", least_share=0.9)


# Refusals.


def test_activations_that_only_know_other_shapes(network):
    def of_pairs(x):
        return keras.ops.reshape(keras.ops.reshape(x, (-1, 4, 2)), (-1, 8))

    inputs = keras.Input((4,))
    x = layers.Dense(8, activation=of_pairs, name="pairs")(inputs)
    model = keras.Model(inputs, layers.Dense(2, name="scores")(x))
    assert "may look at several channels at once" in pruning.kept_whole(model)["pairs"]


def test_l1_counts_no_biases(models):
    structure = Structure(models["recurrent"])
    before = importances(structure, "l1", None, None)
    bias = next(x for x in models["recurrent"].get_layer("gru").weights if x.shape == (2, 18))
    value = bias.numpy()
    bias.assign(value + np.arange(18))
    np.testing.assert_array_equal(importances(structure, "l1", None, None), before)
    bias.assign(value)


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give a goal: `macs`, `flash`, `arena` or `latency`"),
        ({"macs": 0}, "`macs` must be a share .* Received: macs=0"),
        ({"macs": float("nan")}, "`macs` must be a share .* Received: macs=nan"),
        ({"arena": 100, "export": {"quantization": "int8"}}, "for microcontrollers only"),
        ({"flash": "64KB"}, "`flash` is measured in the exported file: give `export`"),
        (
            {"macs": 0.5, "importance": "l1", "least_share": 2},
            "`least_share` must be between 0 and 1",
        ),
        ({"macs": 0.5, "importance": "l2"}, "`importance` must be one of 'taylor', 'l1', 'scale'"),
        ({"macs": 0.5}, '`importance="taylor"` needs `data`'),
        ({"macs": 0.5, "data": []}, "give a compiled `Distiller`, or compile the model"),
        ({"macs": 0.5, "importance": "scale"}, "no unit that may leave has a BatchNormalization"),
    ],
)
def test_wrong_arguments(network, arguments, message):
    with pytest.raises(ValueError, match=message):
        pruning.prune(network, **arguments)


def test_wrong_models(network):
    with pytest.raises(TypeError, match="`model` must be a Keras 3 model"):
        pruning.prune("student.keras", macs=0.5)
    with pytest.raises(ValueError, match="is neither Functional nor a built Sequential"):
        pruning.prune(Subclassed(), macs=0.5, importance="l1")
    with pytest.raises(ValueError, match="is quantize-aware: prune the float model"):
        pruning.prune(quantization.quantize_aware(network), macs=0.5, importance="l1")


# In steps.


@pytest.mark.long
def test_units_become_0_in_steps_and_leave_without_a_trace(split, tmp_path):
    """After an interruption, too: what is 0 says what has left."""
    (x, y), test = split
    student = zoo.stack()
    distiller = keras_distill.Distiller(student, zoo.stack(), alpha=0.3)
    distiller.compile(keras.optimizers.Adam(3e-3), CROSSENTROPY)
    steps = {"begin_step": 4, "end_step": 16, "frequency": 4}
    callback = pruning.GradualPruning(macs=0.5, least_share=0.5, **steps)
    counts = []
    counting = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.append(
            len(zero_units(Structure(distiller.student)))
        )
    )
    distiller.fit(x[:320], y[:320], batch_size=32, verbose=0, callbacks=[callback, counting])
    distiller.save_weights(tmp_path / "half.weights.h5")
    distiller.load_weights(tmp_path / "half.weights.h5")
    callback = pruning.GradualPruning(macs=0.5, least_share=0.5, **steps)
    distiller.fit(x[:320], y[:320], batch_size=32, verbose=0, callbacks=[callback, counting])
    assert counts[6] == 0 < counts[7] == counts[9] == counts[10]
    assert counts[15] == counts[-1] > 0
    assert counts == sorted(counts)
    smaller = pruning.remove_zeros(student)
    before, left = units_of_layers(student), units_of_layers(smaller)
    assert all(left[path] >= math.ceil(0.5 * count) for path, count in before.items())
    share = multiply_accumulates(smaller) / multiply_accumulates(student)
    assert 0.4 < share <= 0.5
    np.testing.assert_allclose(
        smaller(test[0], training=False), student(test[0], training=False), atol=1e-5
    )


def test_a_shared_layer_that_one_call_needs_whole_stays(rng):
    """An LSTM reads two sequences; for the second one its states are given."""
    first, second, states = keras.Input((4, 3)), keras.Input((4, 3)), keras.Input((6,))
    lstm = layers.LSTM(6, name="shared")
    joined = layers.Concatenate()([lstm(first), lstm(second, initial_state=[states, states])])
    model = keras.Model([first, second, states], layers.Dense(2)(layers.Dense(8)(joined)))
    smaller = pruning.prune(zoo.with_random_weights(model), macs=0.96, importance="l1")
    assert smaller.get_layer("shared").units == 6
    assert smaller.count_params() < model.count_params()
    x = [rng.normal(size=(2, *y.shape[1:])).astype("float32") for y in model.inputs]
    assert smaller(x).shape == (2, 2)


def test_a_pruned_model_normalizes_as_it_has_adapted(network):
    """Keras computes with a copy of the statistics, which `assign` leaves as it was."""
    x = np.random.default_rng(0).normal(5, 3, (64, 4)).astype("float32")
    normalization = layers.Normalization()
    normalization.adapt(x)
    hidden, scores = network.layers[1:]
    hidden.kernel.assign(hidden.kernel * [1.0, 1e-3, 1.0])  # The unit that leaves, and of which
    scores.kernel.assign(scores.kernel * [[1.0], [0.0], [1.0]])  # nothing is read.
    model = keras.Sequential([keras.Input((4,)), normalization, hidden, scores])
    pruned = pruning.prune(model, macs=0.9, importance="l1")
    assert pruned.get_layer("hidden").units == 2
    np.testing.assert_allclose(pruned(x), model(x), rtol=1e-5, atol=1e-5)
