"""Regression on a table: prices of Californian districts, 1,000 known, from trees to 4 KB of int8.

The file is the census table of California's districts with the target `median_house_value`, as in
Géron's "Hands-On Machine Learning". From few prices, boosted trees learn far more than a network
does. They then name a price for every other district, and a network learns theirs.

    python examples/tabular_regression.py housing.csv firmware
"""

import sys

import keras
import numpy as np
from keras import layers
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score

import keras_distill

BATCH_SIZE = 128
# Counts and incomes spread over orders of magnitude; the other columns don't.
AS_THEY_ARE = ("longitude", "latitude", "housing_median_age")


def districts(file):
    """Columns from -3 to 3, prices in 100,000 dollars, and which rows, every tenth, to test on."""
    table = keras_distill.data.read_table(file)
    prices = table.pop("median_house_value") / 1e5
    ocean = table.pop("ocean_proximity")
    is_test = np.arange(len(prices)) % 10 == 0
    x = np.stack([v if name in AS_THEY_ARE else np.log(v) for name, v in table.items()], 1)
    x = np.where(np.isnan(x), np.nanmedian(x[~is_test], 0), x)
    x = ((x - x[~is_test].mean(0)) / x[~is_test].std(0)).clip(-3, 3)
    x = np.concatenate([x, ocean[:, None] == np.unique(ocean)], 1).astype("float32")
    return x, prices[:, None].astype("float32"), is_test


def boosted_trees(x, y):
    """A function from rows to prices. Several forests, as one of so few rows depends on chance."""
    forests = [
        HistGradientBoostingRegressor(
            max_iter=300,
            learning_rate=0.05,
            max_leaf_nodes=8,
            max_features=0.4,
            min_samples_leaf=10,
            l2_regularization=1.0,
            random_state=i,
        ).fit(x, y[:, 0])
        for i in range(3)
    ]
    return lambda x: np.mean([f.predict(x) for f in forests], 0)[:, None].astype("float32")


def network(columns):
    """A thousand weights or so."""
    hidden = [layers.Dense(24, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((columns,)), *hidden, layers.Dense(1)])


def fit(model, x, y, rows, steps):
    """Trains a model, or a distiller, for so many steps on so many rows."""
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, steps))
    # Steps of so small a network are run several at once.
    model.compile(optimizer, keras.losses.Huber(), steps_per_execution=8)
    model.fit(x, y, batch_size=BATCH_SIZE, epochs=-(-steps * BATCH_SIZE // rows), verbose=2)


def main(file, output=None, seed=0, labels=1000, steps=12000):
    """Trains the trees, a student on the prices, and the same student on the trees' prices.

    Returns:
        R² (1 is perfect, 0 no better than the mean) on districts held out, by model, and the
        file's size in bytes.
    """
    keras.utils.set_random_seed(seed)
    x, y, is_test = districts(file)
    x_test, y_test = x[is_test], y[is_test]
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~is_test))
    x, y = x[order], y[order]
    teach = boosted_trees(x[:labels], y[:labels])

    # On so few prices, more than this part of the steps makes the student worse.
    on_labels, student = network(x.shape[1]), network(x.shape[1])
    student.set_weights(on_labels.get_weights())
    fit(on_labels, x[:labels], y[:labels], labels, steps // 24)
    teacher = keras_distill.teachers.Arrays(teach(x), name="trees")
    distiller = keras_distill.Distiller(student, teacher, keras.losses.Huber(), alpha=0.0)
    fit(distiller, teacher.attach(x), None, len(x), steps)

    artifact = keras_distill.tflite.convert(
        student, target="micro", quantization="int8", io="float32", calibration=x
    )
    if output is not None:
        artifact.save(output)
    models = {
        "teacher": teach,
        "student on labels": on_labels,
        "student distilled": student,
        "distilled, int8": artifact.predict,
    }
    score = {name: float(r2_score(y_test, model(x_test))) for name, model in models.items()}
    return score | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
