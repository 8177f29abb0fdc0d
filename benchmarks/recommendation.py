"""How much of the best table of films at hand a narrow vector for each film can hold.

usage: python benchmarks/recommendation.py

Ranks all films for each user of MovieLens (small) without training a network: by popularity, by
EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", arXiv:1905.03375), and by its
table cut to a low rank, the most that a student can hold which multiplies a vector of the films
seen by a vector of each film, or to its largest weights; and, without EASE, by as many neighbors of
each film that users saw near it. Writes results/recommendation.json beside this file, and the table
in docs/when_not.md. The lengths and penalties were chosen on the last film but one.
"""

import json
import pathlib

import numpy as np
from common import DATA, RESULTS, insert, write
from scipy import sparse

from keras_distill import _markdown
from keras_distill.data import read_table
from keras_distill.tuning.training import summary

LENGTH = 50
RANKS = (256, 64, 16)
NEIGHBORS = (200, 50)
CUT = "the latter, {} weights a film"
NEAR = "films seen within 20 of each other, {} a film"


def histories(path):
    """The films of each user in the order of time, from 0, and the number of films."""
    table = read_table(path)
    films = np.unique(table["movieId"], return_inverse=True)[1]
    order = np.lexsort((table["timestamp"], table["userId"]))
    starts = np.flatnonzero(np.diff(table["userId"][order])) + 1
    return np.split(films[order], starts), int(films.max()) + 1


def rows_of(groups, films, decay=1.0):
    """A sparse matrix with a row for each group of films: 1 for the last, less for those before."""
    places = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    weights = np.concatenate([decay ** np.arange(len(group))[::-1] for group in groups])
    entries = weights.astype("float32"), (places, np.concatenate(groups))
    return sparse.csr_matrix(entries, (len(groups), films))


def ease(groups, films, penalty):
    """EASE's weight of each film for each other, shape `(films, films)`.

    Films outnumber groups, so that the matrix to invert is that of the groups.
    """
    seen = rows_of(groups, films)
    gram = (seen @ seen.T).toarray() + penalty * np.eye(len(groups))
    smooth = np.linalg.solve(gram, seen.toarray()).astype("float32")
    table = seen.T @ (smooth / (1 - seen.multiply(smooth).sum(0)).A1)
    np.fill_diagonal(table, 0)
    return table


def cosine(groups, films, penalty):
    """How often each film is in a group with each other, less for those that are in many."""
    seen = rows_of(groups, films)
    table = (seen.T @ seen).toarray()
    sizes = np.diag(table).copy()
    np.fill_diagonal(table, 0)
    return table / (np.sqrt(np.outer(sizes, sizes)) + penalty)


def stretches(users, length):
    """Parts of each history, of which each begins in the middle of the one before."""
    half = length // 2
    return [u[i : i + length] for u in users for i in range(0, max(1, len(u) - half), half)]


def low_rank(table, rank, rng):
    """The factors of a table cut to a rank: randomized subspace iteration (Halko et al., 2011)."""
    basis = np.linalg.qr(table @ rng.normal(size=(len(table), rank)).astype("float32"))[0]
    for _ in range(2):
        basis = np.linalg.qr(table @ (table.T @ basis))[0]
    return basis, basis.T @ table


def largest(table, count):
    """The weights of largest size in each row, and zeros."""
    kept = np.argpartition(-np.abs(table), count, axis=1)[:, :count]
    values = np.take_along_axis(table, kept, 1)
    rows = np.repeat(np.arange(len(table)), count)
    return sparse.csr_matrix((values.ravel(), (rows, kept.ravel())), table.shape)


def hits(scores, users, wanted):
    """HR@10 and NDCG@10 of each film wanted, among all that its user hadn't seen."""
    scores = np.array(scores, "float32")
    for row, seen in zip(scores, users, strict=True):
        row[seen] = -np.inf
    own = np.take_along_axis(scores, wanted[:, None], 1)
    rank = (scores > own).sum(1)
    return (rank < 10) * 1.0, (rank < 10) / np.log2(rank + 2)


def run(path, decay=0.85, ranks=RANKS, neighbors=NEIGHBORS):
    """HR@10, NDCG@10 and weights of each way to rank the last film of each user."""
    users, films = histories(path)
    wanted, users = np.array([u[-1] for u in users]), [u[:-1] for u in users]
    query = rows_of([u[-LENGTH:] for u in users], films, decay)
    popular = np.bincount(np.concatenate(users), minlength=films)
    by_user, table = ease(users, films, 100.0), ease(stretches(users, 100), films, 50.0)
    rng = np.random.default_rng(0)
    scores = {
        "popularity": (np.tile(popular, (len(users), 1)), films),
        "EASE, a row for each user": (query @ by_user, films**2),
        "EASE, a row for each 100 films in succession": (query @ table, films**2),
    }
    for rank in ranks:
        left, right = low_rank(table, rank, rng)
        scores[f"the latter, cut to rank {rank}"] = (query @ left) @ right, 2 * rank * films
    near = cosine(stretches(users, 20), films, 20.0)
    for name, weights in ((CUT, table), (NEAR, near)):
        for count in neighbors:
            found = (query @ largest(weights, count)).toarray()
            scores[name.format(count)] = found, count * films
    rates = {name: hits(found, users, wanted) for name, (found, _) in scores.items()}
    results = {
        name: {"HR@10": hit.mean(), "NDCG@10": gain.mean(), "weights": scores[name][1]}
        for name, (hit, gain) in rates.items()
    }
    # What the teacher's neighbors gain over those seen near: mean over users, half its interval.
    for count in neighbors:
        ours, theirs = rates[CUT.format(count)], rates[NEAR.format(count)]
        for name, one, other in zip(("HR@10", "NDCG@10"), ours, theirs, strict=True):
            results[CUT.format(count)][f"gain, {name}"] = summary((one - other).tolist())
    return results


def page(results):
    """The table and what it shows, as Markdown."""
    rows = [
        (name, f"{r['HR@10']:.3f}", f"{r['NDCG@10']:.3f}", f"{r['weights']:,}")
        for name, r in results.items()
    ]
    last = results[CUT.format(NEIGHBORS[-1])]
    gained = ["{:+.3f} ± {:.3f}".format(*last[f"gain, {x}"]) for x in ("HR@10", "NDCG@10")]
    return "\n".join([
        _markdown.table(["ranked by", "HR@10", "NDCG@10", "weights"], rows),
        "",
        f"With {NEIGHBORS[-1]} weights a film, those of EASE gain {' and '.join(gained)} over "
        "films seen within 20 of each other (mean over users with half its 95 % interval).",
    ])  # fmt: skip


def main():
    results = run(pathlib.Path(DATA, "movielens", "ratings.csv.gz"))
    write(RESULTS / "recommendation.json", json.dumps(results, indent=2) + "\n")
    insert(page(results), "docs/when_not.md", "recommendation")
    print(page(results))


if __name__ == "__main__":
    main()
