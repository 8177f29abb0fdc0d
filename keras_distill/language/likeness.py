"""How like a reference several written sequences are."""

from keras import ops

from keras_distill._types import Tensor


def log_bleu(written: Tensor, references: Tensor) -> Tensor:
    """Logarithm of the BLEU of sentences: of up to 4-grams, those of two and more with 1 added.

    As `sacrebleu.sentence_bleu` with `smooth_method="add-k"`, divided by 100. A sentence that has
    no word in common gets that of a millionth of one.

    Args:
        written: Tokens, integers, padded with 0 on the right, shape `(batch, beams, length)`.
        references: Tokens likewise, shape `(batch, tokens)`.

    Returns:
        Float32, shape `(batch, beams)`.
    """
    tokens, given = written[..., None], references[:, None, None, :]
    is_token = ops.not_equal(tokens, 0)
    pairs = ops.logical_and(ops.equal(tokens, given), is_token)
    own_pairs = ops.logical_and(ops.equal(tokens, written[:, :, None]), is_token)
    length, of_reference = (_count(ops.not_equal(x, 0)) for x in (written, references))
    score = ops.minimum(0.0, 1 - of_reference[:, None] / ops.maximum(length, 1.0))
    same, own_same = pairs, own_pairs
    for n in range(4):
        if n:
            same = ops.logical_and(same[:, :, :-1, :-1], pairs[:, :, n:, n:])
            own_same = ops.logical_and(own_same[:, :, :-1, :-1], own_pairs[:, :, n:, n:])
        # Of an n-gram that is written again, as many count as the reference has.
        before = _count(ops.tril(ops.cast(own_same, "float32"), -1))
        hits = _count(before < _count(same))
        added = 1.0 if n else 0.0
        share = (hits + added) / ops.maximum(length - n + added, 1.0)
        score = score + ops.log(ops.maximum(share, 1e-6)) / 4
    return score


def _count(x: Tensor) -> Tensor:
    return ops.sum(ops.cast(x, "float32"), axis=-1)
