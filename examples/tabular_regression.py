"""Regression on a table: prices of Californian houses, from a forest to a network of 257 weights.

The file is the census table of California's districts with the target `median_house_value`, as in
Géron's "Hands-On Machine Learning". The teacher is a forest of scikit-learn, which answers for
points between the districts too: a teacher needn't be a Keras model.

    python examples/tabular_regression.py housing.csv
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score

import keras_distill


def arrays(dataset):
    """Columns, and prices in units of 100,000 dollars, shape `(rows, 1)`."""
    x, y = next(iter(dataset.batch(len(dataset))))
    return x.numpy(), y.numpy()[:, None] / 1e5


def main(file, seed=0, epochs=40):
    """Trains a forest, a student on prices, and the same student distilled from the forest.

    Returns:
        R² (1 is perfect, 0 no better than the mean) on districts held out, by model.
    """
    keras.utils.set_random_seed(seed)
    data = keras_distill.data.load(file, target="median_house_value", seed=seed)
    (x, y), (x_test, y_test) = arrays(data.train), arrays(data.test)
    score = {}

    forest = HistGradientBoostingRegressor(max_iter=500, learning_rate=0.1, random_state=seed)
    forest.fit(x, y[:, 0])
    score["teacher (forest)"] = r2_score(y_test, forest.predict(x_test))
    teacher = keras_distill.teachers.Function(
        lambda x: forest.predict(x)[:, None], output_spec=tf.TensorSpec((None, 1)), name="forest"
    )

    # Both students see the districts with a little noise on their columns.
    train = keras_distill.data.batches(
        tf.data.Dataset.from_tensor_slices((x, y)),
        128,
        augment=keras_distill.data.Augmentation(keras_distill.data.random_noise(0.05)),
        shuffle=len(x),
        seed=seed,
    )

    def fit(title, model, student):
        schedule = keras.optimizers.schedules.CosineDecay(1e-2, epochs * len(train))
        model.compile(keras.optimizers.Adam(schedule), keras.losses.Huber())
        model.fit(train, epochs=epochs, verbose=2)
        score[title] = r2_score(y_test, student.predict(x_test, verbose=0))

    student = keras.Sequential(
        [keras.Input(x.shape[1:]), layers.Dense(16, activation="relu"), layers.Dense(1)]
    )
    initial = student.get_weights()
    fit("student on labels", student, student)
    student.set_weights(initial)
    distiller = keras_distill.Distiller(student, teacher, keras.losses.Huber(), alpha=0.3)
    fit("student distilled", distiller, student)
    return {name: float(np.round(value, 6)) for name, value in score.items()}


if __name__ == "__main__":
    print(main(sys.argv[1]))
