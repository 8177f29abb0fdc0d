"""The metrics of rankings: queries whose candidates are put in order by their scores."""

import numpy as np
import scipy.sparse
from sklearn import metrics as sk

from keras_distill.evaluation.metrics import Scores

#: How many candidates at the top of a ranking count.
TOP = 10


def ranking(scores: np.ndarray, relevance: np.ndarray, teacher: np.ndarray | None = None) -> Scores:
    """Scores of rankings, each the mean over the queries.

    `ndcg_10` is the normalized discounted cumulative gain of the first ten, as in
    `sklearn.metrics.ndcg_score`; `recall_10` the share of the relevant candidates that are among
    the first ten, which is the hit rate where one is relevant; agreement the share of the teacher's
    first ten that are among the candidate's. Candidates of equal scores, of which files of 8 bits
    give many, count by their mean over all orders.

    Args:
        scores: Shape `(queries, candidates)`, the greater the better.
        relevance: How relevant each candidate is, at least 0, same shape; above 0 for at least one
            of each query.
        teacher: The teacher's scores, same shape.
    """
    top = min(TOP, scores.shape[1])
    shares = share_at_top(scores, top)
    relevant = relevance > 0
    means = {
        "ndcg_10": np.array(
            [sk.ndcg_score(y[None], s[None], k=top) for y, s in zip(relevance, scores, strict=True)]
        ),
        "recall_10": (shares * relevant).sum(1) / relevant.sum(1),
    }
    if teacher is not None:
        means["agreement"] = np.minimum(shares, share_at_top(teacher, top)).sum(1) / top
    names, columns = list(means), np.stack(list(means.values()), axis=1)
    return Scores(
        values={name: float(each.mean()) for name, each in means.items()},
        sums=scipy.sparse.csr_array(np.column_stack([np.ones(len(columns)), columns])),
        from_sums=lambda sums: {
            name: sums[..., i] / sums[..., 0] for i, name in enumerate(names, start=1)
        },
        disagreement=None if teacher is None else 1 - means["agreement"],
        predicted=np.argsort(-scores, axis=1, kind="stable")[:, :top],
    )


def share_at_top(scores: np.ndarray, top: int) -> np.ndarray:
    """How likely each candidate is among the first `top`, if those of equal scores are shuffled.

    Args:
        scores: Shape `(queries, candidates)`.
        top: At most the number of candidates.

    Returns:
        Float array of the same shape, whose rows add up to `top`.
    """
    last = -np.partition(-scores, top - 1, axis=1)[:, top - 1, None]
    above, equal = scores > last, scores == last
    left = top - above.sum(1, keepdims=True)
    return above + equal * left / equal.sum(1, keepdims=True)
