"""What models write: greedily, by beams, by chance, and once for all."""

import itertools
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_distill.tflite import convert
from scipy import special

from keras_distill.language import generate, search, write_targets

LENGTH, START, END = 6, 1, 2


def logits(model, tokens):
    return np.asarray(model(np.asarray([tokens], "int32")))[0, -1].astype("float64")


def greedily(next_logits, tokens):
    tokens = list(tokens)
    while len(tokens) < LENGTH:
        tokens.append(1 + int(np.argmax(next_logits(tokens)[1:])))
        if tokens[-1] == END:
            break
    return tokens + [0] * (LENGTH - len(tokens))


def best_of_all(next_logits, tokens, words, penalty):
    """The continuation with the highest score, among all that there are."""
    best = (-np.inf, None)
    room = LENGTH - len(tokens)
    for size in range(1, room + 1):
        for rest in itertools.product(range(1, words), repeat=size):
            if END in rest[:-1] or (size < room and rest[-1] != END):
                continue
            total = 0.0
            for place, token in enumerate(rest):
                # Of all but padding.
                given = next_logits([*tokens, *rest[:place]])[1:]
                total += special.log_softmax(given)[token - 1]
            best = max(best, (total / size**penalty, [*tokens, *rest]))
    return best[1] + [0] * (LENGTH - len(best[1]))


def test_greedy_continuations_of_prompts(causal, prompts):
    model = causal()
    want = [greedily(lambda t: logits(model, t), row[row != 0]) for row in prompts]
    got = generate(model, prompts, length=LENGTH, end=END, batch_size=4)
    np.testing.assert_array_equal(got, want)
    assert any(END in row for row in want)
    assert any(END not in row for row in want)


@pytest.mark.long
def test_one_beam_of_an_encoder_and_decoder(translating, sources):
    model = translating()

    def next_logits(source):
        return lambda t: np.asarray(model({"source": source[None], "target": np.array([t])}))[0, -1]

    want = [greedily(next_logits(source), [START]) for source in sources]
    options = {"target": "target", "start": START, "end": END, "length": LENGTH}
    np.testing.assert_array_equal(generate(model, {"source": sources}, **options), want)


def tokens_of(name, length):
    return {name: keras.InputSpec("int32", (None, length), name=name)}


@pytest.mark.long
def test_a_file_writes_what_its_model_writes(causal, prompts, tmp_path):
    model, path = causal(), tmp_path / "causal.tflite"
    signature = tokens_of("tokens", LENGTH)
    path.write_bytes(convert(model, target="android", input_signature=signature).tflite)
    for beams in (1, 3):
        options = {"length": LENGTH, "end": END, "beams": beams}
        want = generate(model, prompts, **options)
        np.testing.assert_array_equal(generate(path, prompts, batch_size=4, **options), want)


@pytest.mark.long
def test_a_file_of_an_encoder_and_decoder_writes_what_they_write(translating, sources, tmp_path):
    model, path = translating(), tmp_path / "translating.tflite"
    signature = tokens_of("source", 5) | tokens_of("target", LENGTH)
    path.write_bytes(convert(model, target="android", input_signature=signature).tflite)
    options = {"target": "target", "start": START, "end": END, "length": LENGTH}
    for beams in (1, 3):
        want = generate(model, {"source": sources}, beams=beams, **options)
        got = generate(path, {"source": sources}, beams=beams, **options)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all(penalty):
    """At 4 words, against all continuations, with prompts of 2 and 3 tokens."""
    words = 4
    table = np.random.default_rng(3).normal(size=(words, words)) * 2
    first = np.random.default_rng(4).normal(size=(words, words)) * 2

    def by_hand(tokens):
        return table[tokens[-1]] + first[tokens[0]]

    def next_logits(tokens, position):
        last = keras.ops.take(tokens, position - 1, axis=1)
        both = [keras.ops.convert_to_tensor(x, "float32") for x in (table, first)]
        return keras.ops.take(both[0], last, 0) + keras.ops.take(both[1], tokens[:, 0], 0)

    prompts = np.array([[3, 1, 0], [1, 3, 3], [3, 3, 0]])
    tokens = np.pad(prompts, ((0, 0), (0, LENGTH - 3)))
    # All that can be open at once.
    found, scores = search.beam_search(
        next_logits, tokens, (prompts != 0).sum(1), END, 3 * 4**3, penalty
    )
    want = [best_of_all(by_hand, list(row[row != 0]), words, penalty) for row in prompts]
    np.testing.assert_array_equal(found[:, 0], want)
    assert (np.diff(scores) <= 0).all()


def test_probabilities_are_searched_as_their_logits_are(causal, prompts):
    options = {"length": LENGTH, "end": END, "beams": 3}
    plain = generate(causal(), prompts, **options)
    np.testing.assert_array_equal(generate(causal(activation="softmax"), prompts, **options), plain)
    assert (plain != generate(causal(), prompts, length=LENGTH, end=END)).any()


def test_tokens_are_drawn_by_their_probability():
    logits = np.array([2.0, -1.0, 0.5, -np.inf, 1.0], "float32")
    draws = np.random.default_rng(0).random(20_000).astype("float32")
    drawn = np.asarray(search.drawn(np.repeat(logits[None], len(draws), 0), draws))
    shares = np.bincount(drawn, minlength=5) / len(draws)
    np.testing.assert_allclose(shares, special.softmax(logits), atol=0.01)
    assert shares[3] == 0


@pytest.mark.long
def test_drawing_is_repeatable_and_cold_drawing_greedy(causal, prompts):
    model, options = causal(), {"length": LENGTH, "end": END}
    one, same = (generate(model, prompts, temperature=1.0, seed=5, **options) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert (one != generate(model, prompts, temperature=1.0, seed=6, **options)).any()
    cold = generate(model, prompts, temperature=1e-4, **options)
    np.testing.assert_array_equal(cold, generate(model, prompts, **options))


@pytest.mark.long
def test_targets_are_what_generate_writes(translating, sources, tmp_path):
    model = translating()
    options = {"target": "target", "start": START, "end": END, "length": LENGTH, "beams": 3}
    x = {"source": sources}
    want = generate(model, x, **options)
    got = write_targets(model, x, tmp_path, batch_size=4, verbose=0, **options)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == "int32"
    with pytest.raises(ValueError, match="another teacher"):
        write_targets(translating(1), x, tmp_path, batch_size=4, verbose=0, **options)
    with pytest.raises(ValueError, match="another teacher"):
        write_targets(model, x, tmp_path, batch_size=4, verbose=0, **{**options, "beams": 2})
    shard = next(tmp_path.glob("*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated or altered"):
        write_targets(model, x, tmp_path, batch_size=4, verbose=0, **options)


def test_targets_of_other_inputs_are_refused_wherever_they_differ(causal, tmp_path):
    prompts = np.random.default_rng(0).integers(3, 7, (300, 2))
    options = {"length": LENGTH, "end": END, "beams": 1, "verbose": 0}
    model = causal()
    written = write_targets(model, prompts, tmp_path, **options)
    np.testing.assert_array_equal(written[:, :2], prompts)
    others = prompts.copy()
    others[100, 1] = 3 + (others[100, 1] - 2) % 4
    with pytest.raises(ValueError, match="from other inputs"):
        write_targets(model, others, tmp_path, **options)
    # Nor are old and new ones mixed after an interruption.
    for path in sorted(tmp_path.glob("answers-*"))[-4:]:
        path.unlink()
    with pytest.raises(ValueError, match="from other inputs"):
        write_targets(model, others, tmp_path, **options)


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [(np.s_[:, 2::-1], "padded with 0"), (np.s_[:, 3:], "at least one token")],
    ids=["left", "empty"],
)
def test_targets_of_wrong_prompts_are_never_written(causal, prompts, tmp_path, spoilt, message):
    both = np.pad(prompts, ((0, 0), (0, 3)))
    wrong = np.concatenate([both[:, :3], both[spoilt][:, :3]])
    data = tf.data.Dataset.from_tensor_slices(wrong)
    for x in (wrong, data):
        with pytest.raises(ValueError, match=message):
            write_targets(causal(), x, tmp_path / "x", length=LENGTH, end=END, verbose=0)
    with pytest.raises(ValueError, match="fewer than `length`"):
        write_targets(causal(), prompts, tmp_path / "x", length=3, end=END, verbose=0)
    assert not (tmp_path / "x").exists()


@pytest.mark.long
@pytest.mark.usefixtures("optimized_graphs")
def test_a_killed_writer_goes_on_with_the_same_result(translating, sources, tmp_path):
    model = translating()
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "sources.npy", sources)
    script = pathlib.Path(__file__).with_name("write_until_killed.py")
    died = subprocess.run([sys.executable, script, tmp_path], check=False)
    assert died.returncode == -signal.SIGKILL
    shards = {file.name for file in (tmp_path / "killed").glob("*.tfrecord")}
    assert shards == {"answers-00000.tfrecord"}
    options = {"target": "target", "start": START, "end": END, "length": LENGTH, "beams": 3}
    killed, whole = (
        write_targets(
            *(model, {"source": sources}, tmp_path / folder), batch_size=4, verbose=0, **options
        )
        for folder in ("killed", "whole")
    )
    np.testing.assert_array_equal(killed, whole)
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "killed" / file.name).read_bytes()


def test_what_is_refused(causal, translating, prompts, sources):
    options = {"length": LENGTH, "end": END}
    with pytest.raises(ValueError, match="`temperature` or `beams`"):
        generate(causal(), prompts, temperature=1.0, beams=2, **options)
    with pytest.raises(ValueError, match="belong together"):
        generate(translating(), sources, start=START, **options)
    with pytest.raises(ValueError, match="dict by their names. Received: target='target'"):
        generate(translating(), sources, start=START, target="target", **options)
    with pytest.raises(ValueError, match="prompts of 1 to 3 tokens, length=3"):
        generate(causal(), prompts, length=3, end=END)
    with pytest.raises(ValueError, match="padded with 0 on the right"):
        generate(causal(), prompts[:, ::-1], **options)
    with pytest.raises(ValueError, match="whole number of at least 1. Received: end=0"):
        generate(causal(), prompts, length=LENGTH, end=0)
    with pytest.raises(ValueError, match="can write, below 7. Received: end=7"):
        generate(causal(), prompts, length=LENGTH, end=7)
    for wrong in (prompts[0], prompts + 0.5, prompts[:, :0], {"tokens": prompts}, {}, None, "a"):
        with pytest.raises(ValueError, match="integers of shape .samples, tokens."):
            generate(causal(), wrong, **options)
    with pytest.raises(ValueError, match="at least 0, .* Received: -"):
        generate(causal(), -prompts, **options)
    with pytest.raises(ValueError, match="at least one sample"):
        generate(causal(), prompts[:0], **options)


@pytest.mark.parametrize("way", [{}, {"beams": 9}, {"temperature": 5.0}], ids=str)
def test_padding_is_never_written(causal, prompts, way):
    """Not even by a model that expects little else, or with more beams than words."""
    model = causal()
    bias = model.layers[-1].bias
    bias.assign(np.eye(7)[0] * 50)
    got = generate(model, prompts, length=LENGTH, end=END, **way)
    is_after = (np.cumsum(got == END, -1) - (got == END)) > 0
    np.testing.assert_array_equal(got == 0, is_after)
