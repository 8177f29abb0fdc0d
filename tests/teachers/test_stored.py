"""Stored answers: each row gets its own, in every form, and nothing else is ever used."""

import itertools
import json
import shutil
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sweeps import rest_is_long

import keras_distill
from keras_distill.losses import SoftTargets
from keras_distill.outputs import values_of
from keras_distill.teachers import (
    Answered,
    Arrays,
    Ensemble,
    Stored,
    Teacher,
    as_teacher,
    keyed,
    store,
)

CLASSES = 5


@pytest.fixture(scope="module")
def model(dense):
    return dense(CLASSES, name="sage")


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(1)
    return rng.normal(size=(300, 4)).astype("float32"), rng.integers(0, CLASSES, 300)


@pytest.fixture(scope="module")
def dataset(examples):
    return tf.data.Dataset.from_tensor_slices(examples)


@pytest.fixture(scope="module")
def written(model, dataset, tmp_path_factory):
    """Exact answers, and a layer's features, in ten shards. Not to be changed."""
    path = tmp_path_factory.mktemp("answers")
    store(model, dataset, path, features=["hidden"], verbose=0, **EXACT)
    return path


EXACT = {"dtype": "float32", "batch_size": 32, "examples_per_shard": 32}


def rows_of(stored, dataset):
    """Everything that comes by: keys, labels, inputs, outputs and features."""
    parts = []
    for batch, labels in dataset:
        outputs, features = stored.answer(batch, list(stored.layout.features))
        parts.append([batch.keys, labels, batch.inputs, outputs.values, *features])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def batched_then_attached(stored, dataset):
    return stored.attach(keyed(dataset).shuffle(300).batch(7))


def attached_then_batched(stored, dataset):
    return stored.attach(dataset).shuffle(300).batch(7)


def everything_at_once(stored, dataset):
    """Numbered, filtered, interleaved from shards, repeated, shuffled and batched."""
    numbered = keyed(dataset).filter(lambda x, y: y != 2)
    woven = tf.data.Dataset.range(3).interleave(
        lambda i: numbered.shard(3, i).shuffle(50), cycle_length=3, block_length=2
    )
    return stored.attach(woven.repeat(2).shuffle(100)).batch(9)


@pytest.mark.parametrize(
    "pipeline",
    rest_is_long(
        [batched_then_attached, attached_then_batched, everything_at_once], [everything_at_once]
    ),
)
def test_each_row_gets_its_own(written, model, examples, dataset, pipeline):
    stored = Stored(written)
    x, y = examples
    hidden = np.tanh(x @ model.layers[0].kernel + model.layers[0].bias)
    logits = model.predict(x, verbose=0)
    data = pipeline(stored, dataset)
    epochs = [rows_of(stored, data) for _ in range(2)]
    assert not np.array_equal(epochs[0][0], epochs[1][0]), "must come in another order"
    for keys, labels, inputs, outputs, features in epochs:
        count = 2 * np.sum(y != 2) if pipeline is everything_at_once else len(y)
        assert len(keys) == count
        np.testing.assert_array_equal(labels, y[keys])
        np.testing.assert_array_equal(inputs, x[keys])
        np.testing.assert_allclose(outputs, logits[keys], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(features, hidden[keys], rtol=1e-5, atol=1e-6)


def test_files_are_tfrecords_that_tensorflow_reads(written, model, examples):
    manifest = json.loads((written / "manifest.json").read_text())
    assert manifest["examples"] == 300
    assert manifest["views"] == 1
    files = [str(written / shard["file"]) for shard in manifest["shards"]]
    assert len(files) == 10
    raw = [record.numpy() for record in tf.data.TFRecordDataset(files)]
    record = Stored(written).layout.record
    values = np.frombuffer(b"".join(raw), record)["output"]
    np.testing.assert_allclose(values, model.predict(examples[0], verbose=0), rtol=1e-5, atol=1e-6)


def batch_of(stored, dataset):
    return next(iter(stored.attach(dataset).batch(300)))[0]


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_stored_gives_the_loss_of_live(dense, examples, tmp_path, loss_of, activation):
    x = examples[0]
    teacher, student = dense(CLASSES, activation), dense(CLASSES, seed=2)
    stored = store(teacher, x, tmp_path, verbose=0, **EXACT)
    batch = batch_of(stored, x)
    kind = activation or "softmax"
    for loss in (SoftTargets(3.0, activation=kind), keras.losses.MeanSquaredError()):
        live = loss_of(student, teacher, x, loss)
        assert loss_of(student, stored, batch, loss) == pytest.approx(live, rel=1e-6, abs=1e-6)


def test_half_precision_by_default(model, dense, examples, tmp_path, loss_of):
    stored = store(model, examples[0], tmp_path, verbose=0)
    live = loss_of(dense(CLASSES, seed=2), model, examples[0])
    half = loss_of(dense(CLASSES, seed=2), stored, batch_of(stored, examples[0]))
    assert half == pytest.approx(live, rel=1e-2)
    # Five logits of 2 bytes, a signature of 8, and 16 bytes of framing.
    assert stored.bytes_per_example == 34


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_top_k_keeps_the_head_and_the_mass_of_the_tail(
    model, examples, tmp_path, formulas, temperature
):
    x = examples[0]
    stored = store(model, x, tmp_path, top_k=2, temperature=temperature, verbose=0, **EXACT)
    z = model.predict(x, verbose=0)
    outputs = stored.answer(batch_of(stored, x))[0].values.numpy()
    p, q = formulas.softmax(z / temperature), formulas.softmax(outputs / temperature)
    order = np.argsort(-z, axis=1)
    head = np.take_along_axis(p, order[:, :2], 1)
    np.testing.assert_allclose(np.take_along_axis(q, order[:, :2], 1), head, rtol=1e-4)
    tail = np.take_along_axis(q, order[:, 2:], 1)
    np.testing.assert_allclose(tail, np.repeat(1 - head.sum(1), 3).reshape(-1, 3) / 3, rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "temperature"),
    rest_is_long(
        list(itertools.product(["sigmoid", "said", "ensemble"], [1.0, 4.0])),
        [("sigmoid", 4.0)],
    ),
)
def test_top_k_of_a_sigmoid_keeps_the_sum_of_the_tail(rng, tmp_path, temperature, kind):
    """Each label is a probability of its own: those left out keep their mean."""
    x = rng.normal(size=(30, 4)).astype("float32")
    kernel, bias = keras.initializers.RandomNormal(stddev=2.0), keras.initializers.Constant(-7.0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1000, None, True, kernel, bias)])
    z = model.predict(x, verbose=0)
    sigmoid = keras.Model(model.inputs, keras.activations.sigmoid(model.outputs[0]))
    teacher = {
        "sigmoid": sigmoid,
        "said": Teacher(model, activation="sigmoid"),
        "ensemble": Ensemble([sigmoid, sigmoid], combine="logits"),
    }[kind]
    stored = store(teacher, x, tmp_path, top_k=5, temperature=temperature, verbose=0, **EXACT)
    output = stored.answer(batch_of(stored, x))[0]
    if kind != "said":
        np.testing.assert_allclose(output.values, 1 / (1 + np.exp(-output.logits)), rtol=1e-4)
    logits = (z, output.logits_at())
    p, q = (1 / (1 + np.exp(-np.asarray(y, "float64") / temperature)) for y in logits)
    np.testing.assert_allclose(q.sum(1), p.sum(1), rtol=1e-4)
    top = np.argsort(-z, axis=1)[:, :5]
    np.testing.assert_allclose(
        np.take_along_axis(q, top, 1), np.take_along_axis(p, top, 1), rtol=1e-4
    )


def test_top_k_of_all_classes_is_live(model, dense, examples, tmp_path, loss_of):
    stored = store(model, examples[0], tmp_path, top_k=CLASSES, verbose=0, **EXACT)
    student = dense(CLASSES, seed=2)
    live = loss_of(student, model, examples[0])
    assert loss_of(student, stored, batch_of(stored, examples[0])) == pytest.approx(live, abs=1e-6)


def test_top_k_of_many_classes_and_positions(rng, tmp_path):
    """Wide outputs need wider indices, and each position keeps a top k of its own."""
    logits = rng.normal(size=(6, 3, 70_000)).astype("float32")
    stored = store(lambda x: tf.gather(logits, x), np.arange(6), tmp_path, top_k=3, verbose=0)
    assert stored.layout.record.fields["output/classes"][0].base == np.int32
    outputs = stored.answer(batch_of(stored, np.arange(6)))[0].values.numpy()
    np.testing.assert_array_equal(
        np.argsort(-outputs, axis=-1)[..., :3], np.argsort(-logits, axis=-1)[..., :3]
    )


@pytest.mark.long
def test_several_outputs_and_inputs(rng, tmp_path, formulas):
    """A dict in, a dict out; the names go with the arrays whatever their order."""
    first, second = keras.Input((3,), name="u"), keras.Input((2,), name="v")
    joined = layers.Concatenate()([first, second])
    outputs = {
        "z": layers.Dense(4, name="z", activation="softmax")(joined),
        "a": layers.Dense(2, name="a")(joined),
    }
    model = keras.Model({"u": first, "v": second}, outputs)
    x = {"v": rng.normal(size=(20, 2)), "u": rng.normal(size=(20, 3))}
    x = {name: value.astype("float32") for name, value in x.items()}
    stored = store(model, x, tmp_path, top_k={"z": 2}, verbose=0, **EXACT)
    answer, live = values_of(stored.answer(batch_of(stored, x))[0]), model(x)
    np.testing.assert_allclose(answer["a"], live["a"], rtol=1e-5)
    assert np.array_equal(np.argmax(answer["z"], 1), np.argmax(live["z"], 1))
    np.testing.assert_allclose(np.sum(answer["z"], 1), 1, rtol=1e-5)
    student = keras.models.clone_model(model)
    distiller = keras_distill.Distiller(student, stored, SoftTargets(2.0), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    data = stored.attach(x).shuffle(20).batch(6)
    history = distiller.fit(data, verbose=0).history
    found = student.predict(x, verbose=0)
    for name, values in answer.items():
        # Probabilities are logits up to a constant, once their logarithm is taken.
        t, z = (np.log(y) if name == "z" else y for y in (np.asarray(values), found[name]))
        expected = formulas.soft_targets(t, z, 2.0).mean()
        assert history[f"soft_targets_{name}"] == [pytest.approx(expected, rel=1e-4)]


@pytest.mark.long
def test_an_ensemble_is_stored_at_its_temperature(dense, examples, tmp_path, loss_of):
    x, student = examples[0], dense(CLASSES, seed=2)
    ensemble = Ensemble([dense(CLASSES, seed=3), dense(CLASSES, seed=4)], "entropy")
    stored = store(ensemble, x, tmp_path, temperature=4.0, verbose=0, **EXACT)
    live = loss_of(student, ensemble, x, SoftTargets(4.0))
    assert loss_of(student, stored, batch_of(stored, x), SoftTargets(4.0)) == pytest.approx(
        live, rel=1e-5
    )


def jitter(x, seed):
    x = tf.image.stateless_random_flip_left_right(x, seed)
    return tf.image.stateless_random_crop(x, (6, 6, 1), seed)


@pytest.mark.long
def test_views_are_redrawn_with_their_answers(digits, tmp_path):
    """Crops and flips: the student sees the very view that the teacher answered."""
    images = digits[0][:40]
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(10)])
    arguments = {"views": 4, "augment": jitter, "seed": 7, "batch_size": 16, "verbose": 0}
    stored = store(model, images, tmp_path / "a", dtype="float32", **arguments)
    data = stored.attach(images).shuffle(40).batch(8)
    seen = {key: set() for key in range(40)}
    for _ in range(6):
        for (batch,) in data:
            outputs = stored.answer(batch)[0].values
            np.testing.assert_allclose(outputs, model(batch.inputs), rtol=1e-4, atol=1e-5)
            for key, view in zip(batch.keys.numpy(), batch.inputs.numpy(), strict=True):
                seen[key].add(view.tobytes())
    counts = [len(views) for views in seen.values()]
    assert max(counts) == 4
    assert np.mean(counts) > 2.5, "each epoch must draw anew"
    # A view can be asked for, and seeds depend on the key, the view and the store's seed.
    fixed = [
        np.concatenate([batch.inputs for (batch,) in stored.attach(images, view=view).batch(40)])
        for view in (0, 0, 1)
    ]
    np.testing.assert_array_equal(fixed[0], fixed[1])
    assert not np.array_equal(fixed[0], fixed[2])
    with pytest.raises(ValueError, match=r"from 0 to 3.*view=4"):
        stored.attach(images, view=4)
    with pytest.raises(ValueError, match="before batching"):
        stored.attach(keyed(tf.data.Dataset.from_tensor_slices(images)).batch(4))
    with pytest.raises(ValueError, match="isn't the one"):
        Stored(tmp_path / "a", augment=lambda x, seed: x[1:7, 1:7]).attach(images)
    with pytest.raises(ValueError, match="written with `augment`"):
        Stored(tmp_path / "a")


@pytest.mark.long
def test_views_follow_from_the_seed_of_an_epoch(digits, tmp_path):
    """A run that goes on after its first epoch sees the views of its second."""
    keras.utils.set_random_seed(1)  # With 0, TensorFlow can't draw by a seed that is a tensor.
    images = digits[0][:300]
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(10)])
    arguments = {"views": 4, "augment": jitter, "dtype": "float32", "verbose": 0}
    stored = store(model, images, tmp_path, **arguments)

    def views_from(first):
        data = tf.data.Dataset.range(first, 3).flat_map(
            lambda epoch: stored.attach(images, seed=1_000 + epoch).batch(300)
        )
        for (batch,) in data:
            answer = stored.answer(batch)[0].values
            np.testing.assert_allclose(answer, model(batch.inputs), rtol=1e-4, atol=1e-5)
            yield batch.inputs.numpy()

    whole = list(views_from(0))
    np.testing.assert_array_equal(list(views_from(1)), whole[1:])
    same = [np.mean((whole[0] == view).all(axis=(1, 2, 3))) for view in whole[1:]]
    assert max(same) < 0.6, "each epoch must draw anew"


@pytest.mark.long
def test_mixup_goes_with_stored_answers(digits, tmp_path, formulas):
    """Pairs are made by the dataset; the share of each is drawn from the seed."""
    images = tf.data.Dataset.from_tensor_slices(digits[0][:32])
    partners = images.shuffle(32, seed=3, reshuffle_each_iteration=False)
    pairs = tf.data.Dataset.zip({"image": images, "partner": partners})

    def mixup(x, seed):
        share = tf.random.stateless_uniform((), seed)
        return share * x["image"] + (1 - share) * x["partner"]

    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)])
    stored = store(
        model, pairs, tmp_path, views=2, augment=mixup, dtype="float32", batch_size=16, verbose=0
    )
    student = keras.models.clone_model(model)
    distiller = keras_distill.Distiller(student, stored, SoftTargets(1.0), alpha=0.0)
    distiller.compile(keras.optimizers.SGD(0.0))
    losses = []
    for view in (0, 1):
        data = stored.attach(pairs, view=view).shuffle(32).batch(16)
        values = []
        for (batch,) in data:
            answer = model(batch.inputs)
            np.testing.assert_allclose(stored.answer(batch)[0].values, answer, rtol=1e-4, atol=1e-5)
            values.extend(formulas.soft_targets(answer, student(batch.inputs), 1.0))
        losses.append(np.mean(values))
        history = distiller.fit(data, verbose=0).history["loss"]
        assert history == [pytest.approx(losses[-1], rel=1e-4)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_training_with_stored_answers_is_training_with_the_teacher(
    written, model, dense, examples, dataset
):
    """Step by step, from `fit` with labels, metrics, features and validation."""
    losses = []
    for teacher in (model, Stored(written)):
        hint = keras_distill.Match(
            keras.losses.MeanSquaredError(), student="hidden", teacher="hidden"
        )
        distiller = keras_distill.Distiller(dense(CLASSES, seed=2), teacher, [SoftTargets(), hint])
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile("adam", cross_entropy, metrics=["accuracy"])
        data = dataset if teacher is model else teacher.attach(dataset)
        history = distiller.fit(
            data.batch(50), validation_data=dataset.batch(50), epochs=2, verbose=0
        ).history
        losses.append(history)
    assert set(losses[0]) == set(losses[1])
    for name, values in losses[0].items():
        np.testing.assert_allclose(losses[1][name], values, rtol=1e-4, err_msg=name)
    with pytest.raises(ValueError, match=r"has no answers.*attach"):
        distiller.fit(*examples, verbose=0)
    with pytest.raises(ValueError, match=r"no features of the layer 'block'.*'hidden'"):
        Stored(written).tap_path("block")


def contents(path):
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_an_interrupted_store_goes_on(written, model, dataset, tmp_path):
    """What shards are missing are written, byte by byte the same; nothing else is asked again."""
    path = tmp_path / "answers"
    shutil.copytree(written, path)
    for number in (3, 9):
        (path / f"answers-{number:05d}.tfrecord").unlink()
    with pytest.raises(ValueError, match=r"answers-00003\.tfrecord is missing"):
        Stored(path)
    store(model, dataset, path, features=["hidden"], verbose=0, **EXACT)
    assert contents(path) == contents(written)


def test_several_workers_write_their_own_shards(written, model, dataset, tmp_path):
    results = {}

    def work(index):
        results[index] = store(
            model, dataset, tmp_path, features=["hidden"], verbose=0, worker=(index, 2), **EXACT
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1]
    assert contents(tmp_path) == contents(written)


def test_two_processes_that_store_the_same_do_not_disturb_each_other(model, dataset, tmp_path):
    """In step, so that both write each shard at once."""
    step, failed = threading.Barrier(2, timeout=60), []

    def in_step(x):
        step.wait()
        return x

    def answer(x):
        return model(tf.ensure_shape(tf.numpy_function(in_step, [x], tf.float32), x.shape))

    def work():
        try:
            store(answer, dataset, tmp_path / "both", verbose=0, **EXACT)
        except Exception as error:
            step.abort()
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    store(model, dataset, tmp_path / "one", verbose=0, **EXACT)
    both, one = (
        {name: data for name, data in contents(tmp_path / folder).items() if "manifest" not in name}
        for folder in ("both", "one")
    )
    assert both == one


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "answers")


def test_damage_is_found_and_named(copy):
    shard = copy / "answers-00004.tfrecord"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"answers-00004\.tfrecord is truncated"):
        Stored(copy, verify=False)
    altered = bytearray(whole)
    altered[100] ^= 1
    shard.write_bytes(altered)
    with pytest.raises(ValueError, match=r"answers-00004\.tfrecord is altered: its checksum"):
        Stored(copy)
    (copy / "manifest.json").write_text('{"format": "keras')
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        Stored(copy)
    (copy / "manifest.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(ValueError, match=r"isn't of the format.*'other'"):
        Stored(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ValueError, match="no stored answers at"):
        Stored(copy)


def test_another_teacher_is_found(dense, model, dataset, copy):
    arguments = {"features": ["hidden"], "verbose": 0, **EXACT}
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    store(other, dataset, copy, **arguments)
    other.layers[0].bias.assign_add(np.full(8, 1e-3))
    with pytest.raises(ValueError, match=r"of another teacher: of 'sage'"):
        store(other, dataset, copy, **arguments)
    with pytest.raises(ValueError, match=r"another teacher, or of one whose inputs are prepared"):
        store(Teacher(model, preprocess=lambda x: 2 * x), dataset, copy, **arguments)
    with pytest.raises(ValueError, match=r"layout=.*Write these to another folder"):
        store(model, dataset, copy, verbose=0, **EXACT)


@pytest.mark.long
def test_another_data_set_is_found(model, dataset, examples, copy):
    arguments = {"features": ["hidden"], "verbose": 0, **EXACT}
    for other in (examples[0][::-1], examples[0] * 1.01):
        with pytest.raises(ValueError, match="another dataset, in another order"):
            store(model, other, copy, **arguments)
        with pytest.raises(ValueError, match="another dataset, another order"):
            Stored(copy).attach(other)
    with pytest.raises(ValueError, match=r"another dataset: examples=300.*examples=299"):
        store(model, dataset.take(299), copy, **arguments)
    with pytest.raises(ValueError, match="299 examples, and the stored one 300"):
        Stored(copy).attach(dataset.take(299))
    with pytest.raises(ValueError, match="float64"):
        Stored(copy).attach(examples[0].astype("float64"))
    with pytest.raises(ValueError, match="another order"):
        Stored(copy).attach(dataset.shuffle(300, seed=1))
    # Found while it runs, too, and never used.
    late = tf.concat([examples[0][:256], examples[0][:44]], 0)
    with pytest.raises(tf.errors.OpError, match="key 256 isn't the one"):
        list(Stored(copy).attach(late))
    index = tf.data.Dataset.from_tensor_slices(examples[0]).enumerate()
    for gone in (0, 50, 254, 255, 260):
        short = index.filter(lambda i, x, gone=gone: i != gone).map(lambda i, x: x)
        with pytest.raises((ValueError, tf.errors.OpError), match="isn't the one"):
            list(Stored(copy).attach(short).take(max(gone, 1)))
    longer = keyed(dataset.repeat(2)).skip(290)
    with pytest.raises(tf.errors.OpError, match="key 300 has no answer"):
        list(Stored(copy).attach(longer))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"dtype": "float8"}, "dtype='float8'"),
        ({"top_k": 6}, r"top_k=6.*\(None, 5\)"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": {"scores": 2}}, "`top_k` names the output 'scores'.*a single output"),
        ({"views": 2}, "need `augment`"),
        ({"views": 0}, "views=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 32, "examples_per_shard": 40}, "multiple of `batch_size`"),
        ({"temperature": 0}, "temperature=0"),
        ({"worker": (1, 1)}, r"worker=\(1, 1\)"),
        ({"worker": (2, 2)}, r"worker=\(2, 2\)"),
        ({"worker": (-1, 2)}, r"worker=\(-1, 2\)"),
        ({"features": ["head"]}, "no layer 'head'"),
    ],
)
def test_bad_arguments_leave_no_file(model, dataset, tmp_path, arguments, says):
    path = tmp_path / "answers"
    with pytest.raises(ValueError, match=says):
        store(model, dataset, path, verbose=0, **arguments)
    assert not path.exists()


def test_bad_data_and_answers_are_named(model, dataset, examples, tmp_path):
    path = tmp_path / "answers"
    for data, says in (
        (keyed(dataset).batch(2), "unbatch"),
        (dataset.shuffle(300), "the same examples in the same order"),
        (dataset.repeat(), "no end"),
        (dataset.take(0), "no examples"),
    ):
        with pytest.raises(ValueError, match=says):
            store(model, data, path, verbose=0)
    assert not path.exists()
    gaps = keyed(dataset).filter(lambda x, y: y != 2)
    with pytest.raises(ValueError, match="without a gap"):
        store(model, gaps, path, verbose=0)
    with pytest.raises(ValueError, match="aren't complete"):
        Stored(path)
    hot = tf.function(lambda x: model(x) * tf.where(x[:, :1] > 2.0, 1e6, 1.0))
    first = np.flatnonzero(examples[0][:, 0] > 2.0)[0]
    with pytest.raises(ValueError, match=rf"key {first} isn't finite in float16.*float32"):
        store(hot, dataset, tmp_path / "hot", verbose=0)
    unfinished = [*path.iterdir(), *(tmp_path / "hot").iterdir()]
    assert not [file.name for file in unfinished if ".tmp" in file.name]
    with pytest.raises(ValueError, match=r"of a known size.*Pad"):
        store(
            lambda x: tf.boolean_mask(x, x[0] > 0, axis=1), dataset, tmp_path / "ragged", verbose=0
        )


def test_unknown_sizes_are_counted(model, dataset, examples, tmp_path):
    odd = dataset.filter(lambda x, y: y % 2 == 1)
    stored = store(model, odd, tmp_path, verbose=0)
    assert stored.examples == np.sum(examples[1] % 2 == 1)
    assert isinstance(next(iter(stored.attach(odd)))[0], Answered)


def test_arrays_go_with_their_examples_only(model, dataset, examples):
    arrays = Arrays(model.predict(examples[0], verbose=0))
    numbered = keyed(dataset).filter(lambda x, y: y != 2)
    for batch, _ in arrays.attach(numbered).shuffle(300).batch(64):
        answers = arrays.answer(batch)[0]
        np.testing.assert_allclose(answers, model(batch.inputs), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"300 examples. Received: 299"):
        arrays.attach(dataset.take(299))
    with pytest.raises(ValueError, match=r"unknown(.|\n)*keyed"):
        arrays.attach(dataset.filter(lambda x, y: y != 2))


@pytest.mark.long
def test_answers_go_to_the_teacher_that_gave_them(dense, examples, tmp_path, loss_of):
    """Those of several teachers come together; one's are never taken for another's."""
    x, models = examples[0], [dense(CLASSES, seed=seed, name="sage") for seed in (3, 4, 5)]
    a, b = (store(m, x, tmp_path / str(i), verbose=0, **EXACT) for i, m in enumerate(models[:2]))
    teachers = [a, b, Arrays(models[2].predict(x, verbose=0))]
    data = x
    for teacher in teachers:
        data = teacher.attach(data)
    batch = next(iter(data.shuffle(300).batch(300)))[0]
    for teacher, model in zip(teachers, models, strict=True):
        np.testing.assert_allclose(
            values_of(teacher.answer(batch)[0]), model(batch.inputs), rtol=1e-4, atol=1e-5
        )
    student = dense(CLASSES, seed=2)
    live = loss_of(student, Ensemble(models), batch.inputs)
    assert loss_of(student, Ensemble(teachers), batch) == pytest.approx(live, rel=1e-5)
    alone = batch_of(a, x)
    again = Stored(tmp_path / "0").answer(alone)[0]
    np.testing.assert_array_equal(again.values, a.answer(alone)[0].values)
    for other in (b, teachers[2], Ensemble([a, b])):
        with pytest.raises(ValueError, match=r"answers of 'sage.*not of .*b\.attach\(a\.attach"):
            other.answer(alone)
    with pytest.raises(ValueError, match="not of 'sage"):
        a.answer(teachers[2].attach(x))
    more = b.attach(a.attach(x).take(3))
    assert [int(answered.keys) for (answered,) in more] == [0, 1, 2]


def test_progress_says_how_fast_and_how_long(model, dataset, tmp_path, capsys):
    store(model, dataset, tmp_path)
    shown = capsys.readouterr().out
    assert "300/300" in shown
    assert "/s" in shown


def test_fingerprints_stay_what_they_were():
    """By these, stores that were written by earlier code are recognized."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, kernel_initializer="ones")])
    for teacher, fingerprint in (
        (as_teacher(model), "f82efbb29302ce684a11f7eff452e9d96d8b256d60086d8c909271861cfc2a7f"),
        (Teacher(model), "f82efbb29302ce684a11f7eff452e9d96d8b256d60086d8c909271861cfc2a7f"),
        (
            Teacher(model, from_logits=False, activation="sigmoid", class_map=[2, 0]),
            "b41a7f9d4430a66042a9a041581d507314732a817e37e12b1f2f960dce1d11df",
        ),
        (
            as_teacher(lambda x: x),
            "e2c4c1d6b674964433abdeb21fb04eb8b7c92abe16ee7e6fd4127c876fd2643c",
        ),
        (
            Arrays(np.arange(6).reshape(3, 2)),
            "a545ddf6047983226af415ee97e78b3c01a27be1218a07bc896fe6e82aa5e3bc",
        ),
        (
            Ensemble([model, model]),
            "d37a68bd56943a6d595cf98f4c1df7fe7a0badc7bade29e1835e16cd3014533c",
        ),
    ):
        assert teacher.fingerprint() == fingerprint


def test_tokens_are_compared_exactly(tmp_path, rng):
    tokens = rng.integers(1000, 30_000, (40, 12)).astype("int32")
    asked = lambda x: tf.one_hot(x[:, 0] % 5, 5)  # noqa: E731
    stored = store(asked, tokens, tmp_path, verbose=0)
    for place in (0, 5, 11):
        changed = tokens.copy()
        changed[3, place] += 1
        with pytest.raises(ValueError, match="key 3 isn't the one"):
            stored.attach(changed)
        with pytest.raises(ValueError, match="another dataset"):
            store(asked, changed, tmp_path, verbose=0)
    for changed in (tokens + 1, tokens[:, ::-1]):
        with pytest.raises(ValueError, match="another dataset"):
            store(asked, changed, tmp_path, verbose=0)
    stored.attach(tokens)


def test_strings_are_compared_exactly(tmp_path):
    texts = np.array(["a dog runs", "a man sleeps", "two men", "a dog"])
    asked = lambda x: tf.one_hot(tf.strings.length(x), 5)  # noqa: E731
    stored = store(asked, texts, tmp_path, verbose=0)
    with pytest.raises(ValueError, match="key 2 isn't the one"):
        stored.attach(np.array(["a dog runs", "a man sleeps", "two man", "a dog"]))


def test_tokens_beside_loud_floats_are_compared_exactly(tmp_path, rng):
    inputs = {
        "sound": 1e6 * rng.normal(size=(8, 20)).astype("float32"),
        "tokens": rng.integers(3, 9, (8, 4)),
    }
    asked = lambda x: tf.one_hot(x["tokens"][:, 0], 9)  # noqa: E731
    stored = store(asked, inputs, tmp_path, verbose=0)
    stored.attach({**inputs, "sound": np.nextafter(inputs["sound"], np.float32(np.inf))})
    with pytest.raises(ValueError, match="key 0 isn't the one"):
        stored.attach({**inputs, "tokens": inputs["tokens"] + 1})
