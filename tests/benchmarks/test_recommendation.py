"""The closed form of recommendation, against its definition, and on real histories."""

import pathlib

import numpy as np
import pytest


@pytest.fixture
def recommendation(monkeypatch):
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import recommendation

    return recommendation


def test_ease_is_that_of_its_paper(recommendation, rng):
    """By films: P = inv(XᵀX + λ), B = I − P / diag(P)."""
    groups = [rng.choice(9, 4, replace=False) for _ in range(6)]
    x = recommendation.rows_of(groups, 9).toarray().astype("float64")
    inverse = np.linalg.inv(x.T @ x + 2.0 * np.eye(9))
    expected = np.eye(9) - inverse / np.diag(inverse)
    table = recommendation.ease(groups, 9, 2.0)
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-6)


def test_later_films_count_for_more(recommendation):
    rows = recommendation.rows_of([np.array([4, 0, 2]), np.array([1])], 5, 0.5).toarray()
    np.testing.assert_array_equal(rows, [[0.5, 0, 1, 0, 0.25], [0, 1, 0, 0, 0]])


def test_rates_count_films_that_the_user_has_not_seen(recommendation):
    scores = np.arange(15.0)[::-1][None]
    seen, last = [np.arange(3)], np.array([4])  # Second of those unseen.
    assert recommendation.hits(scores, seen, last) == ([1.0], [1 / np.log2(3)])
    assert recommendation.hits(scores, seen, np.array([13])) == ([0.0], [0.0])


def test_neighbors_are_films_of_one_group(recommendation):
    """Of two films in three groups and two, one of them together: 1 / (√6 + 1)."""
    groups = [np.array(group) for group in ([0, 1], [0], [0, 2], [1])]
    table = recommendation.cosine(groups, 4, 1.0)
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 1 / (6**0.5 + 1)
    expected[0, 2] = expected[2, 0] = 1 / (3**0.5 + 1)
    np.testing.assert_allclose(table, expected, rtol=1e-6)


def test_a_low_rank_loses_what_the_table_knows(recommendation, data_dir, tmp_path):
    import gzip

    lines = gzip.decompress((data_dir / "movielens" / "ratings.csv.gz").read_bytes()).decode()
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(lines.splitlines()[:12_001]))
    results = recommendation.run(path, ranks=(8,), neighbors=(50,))
    rates = [r["NDCG@10"] for r in results.values()]
    popularity, _, table, cut, few, near = rates
    assert table > 1.5 * popularity
    assert cut < 0.8 * table
    assert near > 1.5 * popularity
    gain, half = results[recommendation.CUT.format(50)]["gain, NDCG@10"]
    assert gain == pytest.approx(few - near)
    assert half > 0
