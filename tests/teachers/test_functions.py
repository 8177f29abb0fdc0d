"""Teachers that aren't Keras models: functions, SavedModels and TFLite files."""

import ast
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_distill.tflite import runtimes

import keras_distill
from keras_distill.outputs import values_of
from keras_distill.teachers import (
    Arrays,
    Ensemble,
    Function,
    LiteRT,
    SavedModel,
    Teacher,
    as_teacher,
)


def test_a_function_of_tensors(dense, x, loss_of):
    student, model = dense(seed=2), dense()
    expected = loss_of(student, model, x)
    function = tf.function(lambda x: model(x, training=False))
    assert loss_of(student, function, x) == pytest.approx(expected, rel=1e-6)
    softmax = Teacher(lambda x: tf.nn.softmax(model(x)), from_logits=False)
    assert loss_of(student, softmax, x) == pytest.approx(expected, rel=1e-5)


def test_a_function_of_arrays_trains_a_student(digits, formulas):
    """scikit-learn's forest, live, beside compiled Keras code."""
    from sklearn.ensemble import RandomForestClassifier

    images, labels = digits
    x = images.reshape(-1, 64)[:512]
    forest = RandomForestClassifier(8, max_depth=6, random_state=0).fit(x, labels[:512])
    probabilities = Function(forest.predict_proba, output_spec=tf.TensorSpec((None, 10)))
    teacher = Teacher(probabilities, from_logits=False)
    assert teacher.supports_jit is False
    student = keras.Sequential([keras.Input((64,)), layers.Dense(10)])
    p, z = forest.predict_proba(x), student.predict(x, verbose=0)
    expected = np.mean(formulas.soft_targets(np.log(np.maximum(p, 1.2e-38)), z, 4.0))
    distiller = keras_distill.Distiller(student, teacher, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(0.02))
    history = distiller.fit(x, batch_size=512, epochs=20, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, rel=1e-4)
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize("outputs", ["one", "dict"])
def test_saved_models(dense, x, tmp_path, outputs):
    model = dense()
    if outputs == "dict":
        given = keras.Input((4,))
        z = layers.Dense(3, name="z")(given)
        model = keras.Model(given, {"z": z, "w": layers.Dense(2, name="w")(z)})
    model.export(tmp_path / "model", verbose=False)
    for teacher in (
        as_teacher(str(tmp_path / "model")),
        SavedModel(tmp_path / "model", signature="serving_default"),
    ):
        answer, _ = teacher.answer(x)
        keras.tree.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), answer, model(x)
        )
        assert teacher.variables
    with pytest.raises(ValueError, match=r"no signature 'train'.*serving_default"):
        SavedModel(tmp_path / "model", signature="train")
    with pytest.raises(ValueError, match="no SavedModel at"):
        as_teacher(tmp_path)


def tflite(model, path, quantize=None):
    """A TFLite file of `model`, written without the code under test."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in quantize)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


def test_a_tflite_file_trains_a_student(dense, x, tmp_path, loss_of):
    """Inside the graph, in batches of changing size, and in int8 as well."""
    model = dense()
    teacher = as_teacher(tflite(model, tmp_path / "model.tflite"))
    assert isinstance(teacher, LiteRT)
    assert teacher.supports_jit is False
    for size in (1, 5, 16, 2):
        np.testing.assert_allclose(teacher.answer(x[:size])[0], model(x[:size]), atol=1e-5)
    student = dense(seed=2)
    expected = loss_of(student, model, x)
    assert loss_of(student, teacher, x) == pytest.approx(expected, rel=1e-5)
    distiller = keras_distill.Distiller(student, teacher, alpha=0.0)
    # Through `fit`, whose last batch is shorter.
    distiller.compile(keras.optimizers.SGD(0.0))
    history = distiller.fit(x, batch_size=6, epochs=2, verbose=0).history["loss"]
    assert history == pytest.approx([expected] * 2, rel=1e-5)
    int8 = LiteRT(tflite(model, tmp_path / "int8.tflite", quantize=x))
    answer = int8.answer(x)[0].numpy()
    z = model(x).numpy()
    assert 0 < np.abs(answer - z).max() < 0.05 * np.abs(z).max()


def test_a_tflite_file_takes_the_nearest_integers(dense, x, tmp_path, rng):
    """Also for values beside the middle between two steps, where float32 picks the wrong one."""
    path = tflite(dense(), tmp_path / "int8.tflite", quantize=x)
    file = runtimes.LiteRT(path.read_bytes())
    [port], [output] = file.inputs, file.outputs
    middles = ((rng.integers(-60, 60, (300, 4)) + 0.5) * port.scale).astype("float32")
    steps = [round(Fraction(float(value)) / Fraction(port.scale)) for value in middles.ravel()]
    integers = np.clip(np.array(steps) + port.zero_point, -128, 127).astype("int8")
    file.resize([middles.shape])
    [expected] = file.run([integers.reshape(middles.shape)])
    answer = LiteRT(path).answer(middles)[0]
    np.testing.assert_array_equal(answer, output.dequantize(expected))


def test_a_tflite_file_of_one_batch_size(x, tmp_path):
    """A file that can't be resized is run row by row."""
    given = keras.Input((4,), batch_size=1)
    # A reshape to a constant shape ties the file to its batch.
    flat = layers.Lambda(lambda z: tf.reshape(z, (1, 2, 2)))(given)
    model = keras.Model(given, layers.Dense(3)(layers.Flatten()(flat)))
    teacher = LiteRT(tflite(model, tmp_path / "one.tflite"))
    expected = np.concatenate([model(row[None]) for row in x])
    np.testing.assert_allclose(teacher.answer(x)[0], expected, atol=1e-5)


def test_bad_files_are_named(dense, tmp_path):
    path = tflite(dense(activation="softmax"), tmp_path / "p.tflite")
    with pytest.raises(ValueError, match=r"p\.tflite answers with probabilities.*from_logits"):
        as_teacher(LiteRT(path))
    with pytest.raises(ValueError, match=r"p\.tflite answers with probabilities.*from_logits"):
        keras_distill.Distiller(dense(), LiteRT(path))
    assert Teacher(path, from_logits=False).teacher.output_spec.shape == (None, 3)
    (tmp_path / "bad.tflite").write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"bad\.tflite isn't a TFLite model"):
        LiteRT(tmp_path / "bad.tflite")
    with pytest.raises(ValueError, match=r"no file .*none\.tflite"):
        as_teacher(tmp_path / "none.tflite")


@pytest.mark.parametrize("kind", [SavedModel, LiteRT])
def test_probabilities_of_a_file_must_be_said(dense, x, tmp_path, kind):
    """Also beside an output of another kind, and of a signature."""
    given = keras.Input((4,))
    head = layers.Dense(3, activation="softmax")(given)
    options = [{}]
    for name, model in (
        ("one", dense(activation="softmax")),
        ("two", keras.Model(given, [layers.Dense(2)(given), head])),
    ):
        path = tmp_path / name
        if kind is LiteRT:
            tflite(model, path)
        else:
            model.export(path, verbose=False)
            options = [{}, {"signature": "serving_default"}]
        for option in options:
            with pytest.raises(
                ValueError, match=rf"{name} answers with prob.*from_logits="
            ) as error:
                Teacher(kind(path, **option))
            said = ast.literal_eval(str(error.value).split("from_logits=")[1].split(")")[0])
            assert (said is False) == (name == "one")
            teacher = Teacher(kind(path, **option), from_logits=said)
            for answer in keras.tree.flatten(teacher.answer(x)[0]):
                assert (answer.logits is not None) == (answer.shape[-1] == 3)


def test_a_saved_model_that_cannot_be_probed_is_taken_as_it_is(tmp_path):
    given = keras.Input((None, None, 3))
    z = layers.GlobalAveragePooling2D()(layers.Conv2D(3, 64)(given))
    model = keras.Model(given, layers.Softmax()(z))
    model.export(tmp_path, verbose=False)
    images = np.random.default_rng(0).normal(size=(2, 65, 64, 3)).astype("float32")
    answer = values_of(SavedModel(tmp_path).answer(images)[0])
    np.testing.assert_allclose(answer, model.predict(images, verbose=0), rtol=1e-4)


def test_outputs_that_are_no_numbers_are_no_probabilities(tmp_path):
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"logits": x, "classes": tf.constant([["a", "b"]]), "ids": tf.constant([[0, 1]])},
        input_signature=[tf.TensorSpec((None, 2))],
    )
    tf.saved_model.save(module, tmp_path, signatures={"serving_default": module.serve})
    assert SavedModel(tmp_path, signature="serving_default").name == tmp_path.name


def test_int8_probabilities_of_many_classes_must_be_said(x, tmp_path):
    """Those below 1/512 are 0 in int8, so that rows don't add up to 1."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2000, activation="softmax")])
    path = tflite(model, tmp_path / "many.tflite", quantize=x)
    with pytest.raises(ValueError, match="answers with probabilities"):
        as_teacher(path)


@pytest.mark.parametrize("option", ["from_logits", "activation", "class_map"])
def test_options_of_outputs_that_are_not_there_are_refused(dense, x, option):
    said = {"from_logits": False, "activation": "sigmoid", "class_map": [0, 1]}[option]
    given = keras.Input((4,))
    outputs = {"kind": layers.Dense(3)(given), "size": layers.Dense(2)(given)}
    model, model_list = (
        keras.Model(given, outputs if is_dict else list(outputs.values()), name="two")
        for is_dict in (True, False)
    )
    for make, name, there in (
        (lambda o: Teacher(model, **o), "knid", "'kind', 'size'"),
        (lambda o: Teacher(model_list, **o), "kind", ", ".join(map(repr, model_list.output_names))),
        (lambda o: Teacher(Function(model_list), **o), "kind", "0, 1"),
        (lambda o: Teacher(dense(), **o), "scores", "a single output"),
    ):
        with pytest.raises(ValueError, match=rf"`{option}` names.*'{name}'.*{there}"):
            make({option: {name: said}}).answer(x)
    arrays = Teacher(Arrays([np.zeros((16, 3)), np.zeros((16, 2))]), **{option: {"a": said}})
    with pytest.raises(ValueError, match=rf"`{option}` names.*'a'.*0, 1"):
        arrays.answer(arrays.attach(x))
    with pytest.raises(ValueError, match=rf"`{option}` names.*'scores'.*a single output"):
        keras_distill.Distiller(dense(), Teacher(dense(), **{option: {"scores": said}}))


def test_the_reference_model_of_mlperf_tiny(data_dir):
    """A real quantized file, on real images, agrees with its float form."""
    folder = data_dir / "mlperf_tiny" / "ic"
    files = {"float": "pretrainedResnet.tflite", "int8": "pretrainedResnet_quant.tflite"}
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    answers = {}
    for kind, path in files.items():
        teacher = Teacher(folder / path, from_logits=False)
        answers[kind] = teacher.answer(images)[0].values.numpy()
        np.testing.assert_allclose(answers[kind].sum(-1), 1, atol=0.02)
    np.testing.assert_allclose(answers["int8"], answers["float"], atol=0.2)
    assert answers["int8"].shape == (4, 10)


def test_any_teacher_can_be_wrapped(dense, x, tmp_path, formulas):
    """Options mean the same whatever they are put around."""
    model, classes = dense(5), [4, 0, 2]
    model.export(tmp_path / "saved", verbose=False)
    arrays = Arrays(model.predict(x, verbose=0))
    stored = keras_distill.teachers.store(model, x, tmp_path / "stored", dtype="float32", verbose=0)
    attached = next(iter(stored.attach(arrays.attach(x)).batch(16)))[0]
    expected = model(x).numpy()[:, classes]
    for teacher in (
        model,
        lambda x: model(x),
        tmp_path / "saved",
        tmp_path / "stored",
        Teacher(model, preprocess=lambda x: x * 1.0),
        arrays,
        stored,
        Ensemble([model, Teacher(model)], combine="logits"),
    ):
        wrapped = Teacher(teacher, class_map=classes)
        outputs, _ = wrapped.answer(attached)
        output = wrapped.combine(outputs)
        np.testing.assert_allclose(output.values, expected, rtol=1e-4, atol=1e-5)
        (spec,) = keras.tree.flatten(wrapped.answer_spec(keras.KerasTensor((None, 4)))[0])
        assert spec.shape == (None, 3)


def test_learned_weights_are_trained_through_a_wrapper(dense, x):
    ensemble = Ensemble([dense(5), dense(5, seed=3)], weights="learned")
    teacher = Teacher(ensemble, class_map=[0, 1, 2])
    distiller = keras_distill.Distiller(dense(seed=2), teacher, alpha=0.0)
    distiller.compile(keras.optimizers.SGD(1.0))
    history = distiller.fit(x, epochs=2, verbose=0).history
    first, second = np.transpose([history[n] for n in history if n.endswith("_share")])
    np.testing.assert_allclose(first, 0.5, rtol=1e-6)
    scores = np.asarray(ensemble.state.scores, "float64")
    assert np.ptp(scores) > 1e-4
    # The second epoch began with what the first had made of them.
    assert second.sum() == pytest.approx(1)
    assert (second[0] > second[1]) == (scores[0] > scores[1])


def test_a_wrapper_attaches_what_it_wraps(dense, x, loss_of):
    arrays = Arrays(tf.nn.softmax(dense()(x)).numpy())
    teacher = Teacher(arrays, from_logits=False)
    batch = teacher.attach(x)
    student = dense(seed=2)
    assert loss_of(student, teacher, batch) == pytest.approx(loss_of(student, dense(), x), rel=1e-5)
