"""Activities from motion sensors: few people with labels, and a teacher that knows all of them.

The folder is the unpacked "UCI HAR Dataset" (Human Activity Recognition Using Smartphones, UCI
Machine Learning Repository): windows of 2.56 s from gyroscope and accelerometer, 50 a second; the
people in its test set aren't those in its training set. A front end, `motion_features.py`, makes
the numbers that teacher and student read.

    python examples/activity_recognition.py "UCI HAR Dataset" firmware
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from motion_features import features, windows
from sklearn import calibration, discriminant_analysis, ensemble, pipeline, preprocessing, svm

import keras_distill


def network(widths, x):
    hidden = [layers.Dense(width, "relu") for width in widths]
    return keras.Sequential([keras.Input(x.shape[1:]), *hidden, layers.Dense(6)])


def fit(model, x, y, steps):
    """Trains a model, or a distiller, for so many steps."""
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(10_000).repeat().batch(64)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2), loss)
    model.fit(data.prefetch(2), steps_per_epoch=steps, verbose=2)


def knows_all(x, y):
    """The teacher: the mean of what discriminant analysis and a support vector machine say."""
    analysis = discriminant_analysis.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.05)
    machine = calibration.CalibratedClassifierCV(svm.SVC(C=10, gamma=0.001), ensemble=False, cv=3)
    teacher = ensemble.VotingClassifier(
        [("analysis", analysis), ("machine", machine)], voting="soft"
    )
    return pipeline.make_pipeline(preprocessing.StandardScaler(), teacher).fit(x, y)


def main(folder, output=None, seed=0, labeled=3, widths=(20,), steps=3000):
    """Trains the student on the labels of few people, and on the answers to the windows of all.

    Returns:
        Accuracy on people whom nobody has met by model, and the file's size in bytes.
    """
    keras.utils.set_random_seed(seed)
    x, y, people = windows(folder, "train")
    x_test, y_test, _ = windows(folder, "test")
    (x, beside), (x_test, beside_test) = features(x), features(x_test)
    mean, deviation = x.mean(0), x.std(0)
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    teacher = knows_all(np.concatenate([x, beside], 1), y)
    some = np.isin(people, np.random.default_rng(seed).permutation(np.unique(people))[:labeled])

    # Steps and rate were chosen for each student on people held out of those to train on.
    on_labels, student = network(widths, x), network(widths, x)
    fit(on_labels, x[some], y[some], steps)
    answers = teacher.predict_proba(np.concatenate([x, beside], 1))
    answers = keras_distill.teachers.Arrays(np.log(answers.clip(1e-6)).astype("float32"))
    distiller = keras_distill.Distiller(
        student, answers, keras_distill.losses.SoftTargets(temperature=1.0), alpha=0.0
    )
    fit(distiller, answers.attach(x), None, steps)
    artifact = keras_distill.tflite.convert(student, "micro", "int8", calibration=x[::10])
    if output is not None:
        artifact.save(output)
    found = {"teacher": teacher.predict(np.concatenate([x_test, beside_test], 1))}
    models = {"student on labels": on_labels, "student distilled": student}
    models["distilled, int8"] = artifact
    found |= {name: model.predict(x_test).argmax(1) for name, model in models.items()}
    accuracy = {name: float((said == y_test).mean()) for name, said in found.items()}
    return accuracy | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
