"""Students that teach each other: the loss of the paper, what is reported, what is saved."""

import keras
import numpy as np
import pytest
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import LogitMSE, SoftTargets


@pytest.fixture
def cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("count", rest_is_long([2, 3], [3]))
def test_loss_and_gradient_are_those_of_the_paper(dense, x, formulas, cross_entropy, count):
    students = [dense(seed=seed, name=f"s{seed}") for seed in range(count)]
    y = np.arange(16) % 3
    mutual = keras_distill.MutualDistiller(students, alpha=0.5)
    mutual.compile(keras.optimizers.SGD(0.1), cross_entropy)
    z = [np.asarray(student(x), "float64") for student in students]
    expected, targets = 0.0, {}
    for i, own in enumerate(z):
        peers = [other for j, other in enumerate(z) if j != i]
        mean = np.log(sum(formulas.softmax(peer) for peer in peers) / len(peers))
        labels = -formulas.log_softmax(own)[np.arange(16), y].mean()
        expected += 0.5 * (labels + formulas.soft_targets(mean, own, 1.0).mean())
        # The gradient at the logits; the peers' own logits get none of it.
        targets[i] = 0.5 * (
            2 * formulas.softmax(own) - np.eye(3)[y] - np.exp(formulas.log_softmax(mean))
        )
    before = [student.layers[-1].bias.numpy() for student in students]
    logs = mutual.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    for i, student in enumerate(students):
        step = before[i] - student.layers[-1].bias.numpy()
        np.testing.assert_allclose(step, 0.1 * targets[i].mean(0), rtol=1e-3, atol=1e-6)


@pytest.mark.long
def test_fit_evaluate_predict_save(dense, x, tmp_path, cross_entropy):
    students = [dense(seed=1, name="one"), dense(seed=2, name="two")]
    y = np.arange(16) % 3
    mutual = keras_distill.MutualDistiller(students, SoftTargets(2.0))
    mutual.compile("adam", cross_entropy, [keras.metrics.SparseCategoricalAccuracy(name="right")])
    history = mutual.fit(x, y, epochs=3, verbose=0, validation_data=(x, y)).history
    assert history["loss"][-1] < history["loss"][0]
    for name in ("soft_targets_one", "soft_targets_two", "one_right", "val_two_right"):
        assert len(history[name]) == 3
    results = mutual.evaluate(x, y, verbose=0, return_dict=True)
    answers = mutual.predict(x, verbose=0)
    for student in mutual.students:
        z = student.predict(x, verbose=0)
        np.testing.assert_allclose(answers[student.name], z, rtol=1e-5)
        assert results[f"{student.name}_right"] == pytest.approx(np.mean(z.argmax(1) == y))
        student.save(tmp_path / f"{student.name}.keras")
        alone = keras.models.load_model(tmp_path / f"{student.name}.keras")
        np.testing.assert_allclose(alone.predict(x, verbose=0), z, rtol=1e-6)
    mutual.save(tmp_path / "both.keras")
    loaded = keras.models.load_model(tmp_path / "both.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0)["two"], answers["two"], rtol=1e-6)
    more = [model.fit(x, y, verbose=0, shuffle=False).history["loss"] for model in (mutual, loaded)]
    np.testing.assert_allclose(*more, rtol=1e-5)


def test_students_that_end_in_softmax(dense, x):
    values = []
    for activation in (None, "softmax"):
        students = [dense(activation=activation, seed=seed, name=f"s{seed}") for seed in (1, 2, 3)]
        mutual = keras_distill.MutualDistiller(students, SoftTargets(4.0), alpha=0.0)
        answer = mutual.run_student(x)
        losses = mutual.compute_losses(x, None, answer, mutual.ask_teacher(x))
        values.append(float(losses["loss"]))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("check_numerics", rest_is_long([False, True], [False]))
@pytest.mark.parametrize("activation", [None, "sigmoid"])
def test_sigmoid_losses_read_the_mean_of_sigmoids(dense, x, activation, check_numerics):
    students = [dense(activation=activation, seed=seed, name=f"s{seed}") for seed in (1, 2, 3)]
    loss = SoftTargets(2.0, activation="sigmoid")
    mutual = keras_distill.MutualDistiller(students, loss, 0.0, check_numerics=check_numerics)
    mutual.compile(keras.optimizers.SGD(0.0))
    logits = [np.asarray(dense(seed=seed)(x), "float64") for seed in (1, 2, 3)]
    p = [1 / (1 + np.exp(-z / 2)) for z in logits]
    logs = mutual.train_on_batch(x, return_dict=True)
    for i, q in enumerate(p):
        mean = (sum(p) - q) / 2
        kl = mean * np.log(mean / q) + (1 - mean) * np.log((1 - mean) / (1 - q))
        assert logs[f"soft_targets_s{i + 1}"] == pytest.approx(4 * kl.mean(), rel=1e-4)


@pytest.mark.parametrize("loss", [keras.losses.MeanSquaredError(), LogitMSE()])
def test_losses_on_values_read_the_mean_of_values(dense, x, loss):
    students = [dense(seed=seed, name=f"s{seed}") for seed in (1, 2, 3)]
    mutual = keras_distill.MutualDistiller(students, loss, alpha=0.0)
    mutual.compile(keras.optimizers.SGD(0.0))
    z = [student.predict(x, verbose=0) for student in students]
    logs = mutual.train_on_batch(x, return_dict=True)
    for own, student in zip(z, students, strict=True):
        expected = np.square((sum(z) - own) / 2 - own).mean()
        assert logs[f"{loss.name}_{student.name}"] == pytest.approx(expected, rel=1e-4)


def test_bad_students(dense):
    with pytest.raises(TypeError, match="list of Keras models"):
        keras_distill.MutualDistiller(dense())
    for students in ([dense(name="a")], [dense(name="a"), dense(name="a")]):
        with pytest.raises(ValueError, match=r"two or more models with different names.*'a'"):
            keras_distill.MutualDistiller(students)
    with pytest.raises(ValueError, match=r"one shape.*\(None, 3\).*\(None, 4\)"):
        keras_distill.MutualDistiller([dense(3, name="a"), dense(4, name="b")])
