import keras
import numpy as np
import pytest

import keras_distill
from keras_distill import tuning


@pytest.fixture(scope="module")
def data(digits):
    x, y = digits
    return (x[:400], y[:400]), (x[400:600], y[400:600])


@pytest.fixture(scope="module")
def teacher(data):
    keras.utils.set_random_seed(0)
    model = network(32)
    model.compile("adam", LOSS)
    model.fit(*data[0], epochs=5, verbose=0)
    return model


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(units):
    layers = [keras.layers.Flatten(), keras.layers.Dense(units, "relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


@pytest.fixture
def build(teacher):
    def build(temperature=4.0, alpha=0.1, learning_rate=1e-2):
        distiller = keras_distill.Distiller(
            network(4),
            teacher,
            losses=keras_distill.losses.SoftTargets(temperature),
            alpha=alpha,
        )
        distiller.compile(
            keras.optimizers.Adam(learning_rate), LOSS, metrics=["accuracy"], run_eagerly=True
        )
        return distiller

    return build


SPACE = {"temperature": (1.0, 16.0), "learning_rate": (1e-4, 1e-1, "log")}
START = {"temperature": 4.0, "learning_rate": 1e-4}


@pytest.mark.long
def test_search_finds_more_than_its_start_and_goes_on(build, data, tmp_path):
    journal = tmp_path / "search.journal"
    settings = {"epochs": 2, "start": START, "journal": journal, "batch_size": 200}
    first = tuning.tune(build, *data, SPACE, trials=2, **settings)
    assert first.study.trials[0].params == START
    assert first.start == first.study.trials[0].value
    tried = [trial.params for trial in first.study.trials]

    # Going on keeps what is there, and adds what is missing.
    search = tuning.tune(build, *data, SPACE, trials=4, **settings)
    assert [trial.params for trial in search.study.trials[:2]] == tried
    assert len(search.study.trials) == 4
    assert search.value == max(t.value for t in search.study.trials if t.value is not None)
    assert search.value > search.start
    assert f"{search.value:.5g}" in str(search)

    # The value is what `fit` reports for these settings.
    keras.utils.set_random_seed(0)
    history = build(**search.best).fit(
        *data[0], validation_data=data[1], epochs=2, batch_size=200, verbose=0
    )
    assert history.history["val_accuracy"][-1] == search.value

    with pytest.raises(ValueError, match="belongs to a search with other space and epochs"):
        tuning.tune(build, *data, {"alpha": (0.0, 1.0)}, trials=5, epochs=3, journal=journal)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, pytest.param(MemoryError, marks=pytest.mark.long)]
)
def test_a_search_that_was_cut_off_goes_on(build, data, tmp_path, error):
    def dies(**values):
        raise error

    settings = {"trials": 1, "epochs": 1, "start": START, "journal": tmp_path / "journal"}
    with pytest.raises(error):
        tuning.tune(dies, *data, SPACE, **settings)
    search = tuning.tune(build, *data, SPACE, **settings)
    states = [trial.state.name for trial in search.study.trials]
    assert states == ["FAIL", "COMPLETE"]
    assert search.study.trials[1].params == START
    assert search.start == search.value


@pytest.mark.long
def test_hopeless_trials_are_pruned(data):
    levels = iter([0.5, 0.6, 0.7, 0.8, 0.9, 0.1])

    class Scripted(keras.callbacks.Callback):
        """Reports the next level, whatever the model does."""

        def on_train_begin(self, logs=None):
            self.level = next(levels)

        def on_epoch_end(self, epoch, logs=None):
            logs["val_accuracy"] = self.level + 0.01 * epoch

    def build(unused):
        model = network(1)
        model.compile("sgd", LOSS, run_eagerly=True)
        return model

    few = tuple(part[:8] for part in data[0])
    search = tuning.tune(
        build, few, few, {"unused": (0.0, 1.0)}, trials=6, epochs=2, callbacks=[Scripted()]
    )
    assert [t.state.name for t in search.study.trials] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert search.study.trials[5].intermediate_values == {0: 0.1}
    assert search.value == 0.91
    assert "5 trials completed, 1 pruned" in str(search)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {}}, "names no hyperparameter"),
        ({"space": {"alpha": (1.0, 0.0)}}, "range from low to high"),
        ({"space": {"alpha": (0.0, 1.0, "log")}}, "above 0 on a logarithmic"),
        ({"space": {"alpha": 0.5}}, "or a list of choices"),
        ({"space": {"alpha": (0.0, 1.0)}, "start": {"beta": 1}}, "`start` must give each of"),
        ({"space": {"alpha": (0.0, 1.0)}, "monitor": "accuracy"}, "metric on validation data"),
        ({"space": {"alpha": (0.0, 1.0)}, "mode": "best"}, '"max", "min" or None'),
    ],
)
def test_bad_searches_are_refused(build, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        tuning.tune(build, *data, trials=1, epochs=1, **arguments)


def test_a_metric_that_fit_does_not_report(build, data):
    with pytest.raises(ValueError, match="doesn't report 'val_auc'. It reports: .*val_accuracy"):
        tuning.cross_validate(build, data[0], epochs=1, folds=2, monitor="val_auc")


@pytest.mark.parametrize(
    ("monitor", "expected"),
    [
        ("val_accuracy", "max"),
        ("val_loss", "min"),
        ("val_mean_io_u", "max"),
        ("val_mae", "min"),
        ("val_fbeta_score", "max"),
        ("val_cosine_similarity", "max"),
        ("val_sensitivity_at_specificity", "max"),
        ("val_tower2_loss", "min"),
        ("val_classifier_accuracy_loss", "min"),
        ("val_accelerometer_loss", "min"),
        ("val_mean_squared_error", "min"),
    ],
)
def test_direction_of_metrics(monitor, expected):
    assert tuning.training.direction(monitor) == expected
    assert tuning.training.direction(monitor, "max") == "max"


def test_a_metric_whose_name_says_nothing_needs_a_mode():
    assert tuning.training.direction("val_score", "max") == "max"
    with pytest.raises(ValueError, match="metric 'val_score' doesn't tell .* better. Give `mode`"):
        tuning.training.direction("val_score")


@pytest.mark.long
def test_every_sample_is_held_out_once(teacher, data):
    (x, y), _ = data
    seen = []

    class Recorder(keras.Sequential):
        def fit(self, *pair, validation_data, **arguments):
            seen.append((pair, validation_data))
            return super().fit(*pair, validation_data=validation_data, **arguments)

    def build():
        model = Recorder([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        model.compile("adam", LOSS, metrics=["accuracy"], run_eagerly=True)
        return model

    groups = np.arange(400) // 10
    ids = np.arange(400.0)[:, None, None, None]
    result = tuning.cross_validate(
        build, (x + ids, y), folds=3, epochs=1, groups=groups, batch_size=200
    )
    held_out = [np.floor(v[0][:, 0, 0, 0]).astype(int) for _, v in seen]
    assert sorted(np.concatenate(held_out)) == list(range(400))
    for (inside, _), out in zip((pair for pair, _ in seen), held_out, strict=True):
        inside = np.floor(inside[:, 0, 0, 0]).astype(int)
        assert not set(groups[inside]) & set(groups[out])
    assert len(result.folds) == 3
    assert result.mean == pytest.approx(np.mean([f["val_accuracy"] for f in result.folds]))
    assert "mean" in str(result)


@pytest.mark.long
def test_ablation_leaves_out_each_loss_in_turn(teacher, data):
    def build():
        distiller = keras_distill.Distiller(
            network(4),
            teacher,
            losses=[
                keras_distill.losses.SoftTargets(2.0),
                keras_distill.Match(keras.losses.MeanSquaredError(name="mse"), weight=0.1),
            ],
            alpha=0.5,
        )
        distiller.compile(keras.optimizers.Adam(1e-2), LOSS, metrics=["accuracy"], run_eagerly=True)
        return distiller

    train, validation = data
    result = tuning.ablate(build, train, validation, epochs=1, runs=1, batch_size=200)
    assert list(result.values) == [
        "all", "without soft_targets", "without mse", "without labels", "labels alone",
    ]  # fmt: skip

    # "Labels alone" is plain training from the same seed.
    keras.utils.set_random_seed(0)
    distiller = build()
    plain = distiller.student
    plain.compile(keras.optimizers.Adam(1e-2), LOSS, metrics=["accuracy"], run_eagerly=True)
    logs = plain.fit(*train, validation_data=validation, batch_size=200, verbose=0).history
    assert result.values["labels alone"][0] == logs["val_accuracy"][0]
    assert "difference to all" in str(result)


def test_ablation_refuses_schedules(teacher, data):
    def build():
        schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
        distiller = keras_distill.Distiller(network(4), teacher, alpha=schedule)
        distiller.compile("adam", LOSS, metrics=["accuracy"], run_eagerly=True)
        return distiller

    with pytest.raises(ValueError, match="'alpha' follows a schedule"):
        tuning.ablate(build, *data, epochs=1, runs=1)
