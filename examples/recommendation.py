"""Recommendation: which item comes next, from a wide two-tower teacher to a narrow student.

The file is a CSV with the columns `userId`, `movieId`, `rating` and `timestamp`, as in MovieLens.
One tower makes a vector of what a user liked, the other of each item; their product ranks the
items. The student's vectors are an eighth as long: so is what a server keeps and searches.

    python examples/recommendation.py ratings.csv
"""

import sys

import keras
import numpy as np
from keras import layers

import keras_distill


def histories(file, items, least_rating=4.0):
    """What users liked, as one row of zeros and ones each, and the item that each liked last.

    Only the `items` liked most often count, and users who liked at least three of them.
    """
    table = keras_distill.data.read_table(file)
    liked = table["rating"] >= least_rating
    users, movies, times = (table[name][liked] for name in ("userId", "movieId", "timestamp"))
    names, counts = np.unique(movies, return_counts=True)
    names = np.sort(names[np.argsort(-counts, kind="stable")[:items]])
    kept = np.isin(movies, names)
    order = np.lexsort((times[kept], users[kept]))
    users, movies = users[kept][order], np.searchsorted(names, movies[kept][order])
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    x, y = [], []
    for row in np.split(movies, starts[1:]):
        if len(np.unique(row)) >= 3:
            x.append(np.isin(np.arange(len(names)), row[:-1]) & (np.arange(len(names)) != row[-1]))
            y.append(row[-1])
    return np.array(x, "float32"), np.array(y, "int32")


def two_towers(items, width, depth, dropout, name):
    """Scores of all items for a history: dot products of the user's and the items' vectors."""
    history = keras.Input((items,))
    x = layers.UnitNormalization()(history)
    x = layers.Dropout(dropout)(x)
    for _ in range(depth):
        x = layers.Dense(4 * width, activation="tanh")(x)
    user = layers.Dense(width)(x)
    return keras.Model(history, layers.Dense(items, name="items")(user), name=name)


def main(file, seed=0, epochs=20, items=2000):
    """Trains a teacher, a student on what users liked, and the same student distilled.

    Returns:
        Share of users whose last item is among the 20 ranked highest of those not yet seen, on
        users held out, by model.
    """
    keras.utils.set_random_seed(seed)
    x, y = histories(file, items)
    order = np.random.default_rng(seed).permutation(len(x))
    test, train = np.split(order, [len(x) // 5])
    recall = {}

    def fit(title, model, predict):
        model.compile(
            keras.optimizers.Adam(2e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x[train], y[train], batch_size=128, epochs=epochs, verbose=2)
        scores = predict.predict(x[test], verbose=0) - 1e9 * x[test]
        rank = (scores > np.take_along_axis(scores, y[test][:, None], 1)).sum(1)
        recall[title] = float((rank < 20).mean())

    teacher = two_towers(x.shape[1], 128, 1, 0.5, "teacher")
    fit("teacher", teacher, teacher)
    student = two_towers(x.shape[1], 16, 0, 0.0, "student")
    initial = student.get_weights()
    fit("student on labels", student, student)
    student.set_weights(initial)
    losses = keras_distill.losses.SoftTargets(temperature=1.0)
    fit("student distilled", keras_distill.Distiller(student, teacher, losses, alpha=0.1), student)
    return recall


if __name__ == "__main__":
    print(main(sys.argv[1]))
