"""Streams scored against events, with values that can be counted by hand."""

import math

import numpy as np
import pytest
from keras_distill.tflite import Decision

import keras_distill
from keras_distill.evaluation import StreamData, compare, compare_streams, frames


def scored(peaks, steps=100, classes=3):
    """Scores that are 0 but at some steps: `{(step, word): score}`."""
    result = np.zeros((steps, classes), "float32")
    for (step, word), score in peaks.items():
        result[step, word] = score
    return result


DECISION = Decision({1: 0.5, 2: 0.5}, refractory=2)


def test_each_detection_counts_once():
    """Steps of a tenth of a second: step 11 ends at 1.2 s."""
    events = [(1.0, 1.5, 1), (3.0, 3.5, 2), (5.0, 5.5, 1), (7.0, 7.5, 2)]
    peaks = {
        (11, 1): 0.9,  # in the first event
        (16, 1): 0.9,  # a second time: a false accept
        (37, 2): 0.9,  # 0.3 s after the end of the second
        (52, 2): 0.9,  # the wrong word in the third: a false accept and a miss
        (91, 1): 0.9,  # nothing is there
        (92, 1): 0.9,  # waits after a detection
    }
    found = StreamData([scored(peaks)], [events], step=0.1).scores(DECISION)
    assert (found.events, found.hits, found.misses, found.false_accepts) == (4, 2, 2, 3)
    assert found.delays == pytest.approx([-0.3, 0.3])
    assert found.mean_delay == pytest.approx(0.0)
    assert found.hours == pytest.approx(10 / 3600)
    assert found.false_accepts_per_hour == pytest.approx(3 * 360)
    assert found.miss_rate == 0.5
    assert found.confusion == {1: {1: 1, 2: 1}, 2: {2: 1, None: 1}, None: {1: 2}}
    assert found.to_dict()["confusion"]["None"] == {"1": 2}


def test_detections_at_the_edges_of_an_event():
    """From its start to the tolerance after its end, both included."""
    for step, hit in ((8, False), (9, True), (14, True), (16, True), (17, False)):
        data = StreamData([scored({(step, 1): 1})], [[(1.0, 1.5, 1)]], 0.1, tolerance=0.2)
        assert data.scores(DECISION).hits == hit, step


def test_recordings_are_counted_together():
    one, other = scored({(5, 1): 1}), scored({(5, 1): 1}, steps=50)
    found = StreamData([one, other], [[(0.5, 0.6, 1)], []], 0.1).scores(DECISION)
    assert (found.hits, found.false_accepts) == (1, 1)
    assert found.hours == pytest.approx(15 / 3600)
    silent = StreamData([other], [[]], 0.1).scores(DECISION.at(2.0))
    assert math.isnan(silent.miss_rate)
    assert math.isnan(silent.mean_delay)


def tradeoff():
    """Two events of scores 0.9 and 0.6; false scores of 0.8, 0.5 and 0.3, in 36 seconds."""
    peaks = {(50, 1): 0.9, (150, 1): 0.6, (250, 1): 0.8, (300, 1): 0.5, (330, 1): 0.3}
    events = [(5.0, 5.5, 1), (15.0, 15.5, 1)]
    return StreamData([scored(peaks, steps=360)], [events], step=0.1)


def test_curve_has_a_point_for_each_threshold():
    points = tradeoff().curve(Decision({1: 0.5}, refractory=400))
    # Everything after the first detection waits.
    assert [p[1:] for p in points[:3]] == [(0, 1), (0, 0.5), (0, 0.5)]
    points = tradeoff().curve(Decision({1: 0.5}))
    assert points[0].threshold > float(np.float32(0.9))
    expected = [(0, 1), (0, 0.5), (100, 0.5), (100, 0), (200, 0), (300, 0)]
    assert [p[1:] for p in points[:6]] == [pytest.approx(row) for row in expected]
    rest = [0.9, 0.8, 0.6, 0.5, 0.3, 0.0]
    assert [p.threshold for p in points[1:]] == pytest.approx(rest)


def test_threshold_misses_least_at_the_wanted_rate():
    data, decision = tradeoff(), Decision({1: 0.1}, refractory=3)
    for per_hour, threshold, misses in ((0, 0.9, 1), (99, 0.9, 1), (100, 0.6, 0), (250, 0.6, 0)):
        chosen = data.choose(decision, per_hour)
        assert chosen.thresholds == {1: pytest.approx(threshold)}
        assert (chosen.refractory, data.scores(chosen).misses) == (3, misses)
        assert data.scores(chosen).false_accepts_per_hour <= per_hour + 1e-6
    with pytest.raises(ValueError, match="Received: per_hour=-1"):
        data.choose(decision, -1)
    with pytest.raises(ValueError, match="without events"):
        StreamData([scored({})], [[]], 0.1).choose(decision, 1)


def test_streams_side_by_side():
    class Silent:
        def predict(self, recordings):
            return np.zeros((len(recordings), 100, 3))

    good = scored({(11, 1): 0.9})[None]
    events = [[(1.0, 1.5, 1)]]
    found = compare_streams({"good": good, "silent": Silent()}, good, events, DECISION, 0.1)
    assert [f.miss_rate for f in found.values()] == [0, 1]
    each = {"good": DECISION.at(0.95), "silent": DECISION.at(0.0)}
    found = compare_streams({"good": good, "silent": Silent()}, good, events, each, 0.1)
    assert found["good"].misses == 1
    assert found["silent"].false_accepts > 10
    with pytest.raises(ValueError, match=r"one for each candidate. Received: \['good'\]"):
        compare_streams({"other": good}, good, events, {"good": DECISION}, 0.1)
    with pytest.raises(TypeError, match=r"Received: decisions=0\.5"):
        compare_streams({"good": good}, good, events, 0.5, 0.1)


class Stored(keras_distill.teachers.Function):
    """A candidate whose scores are known."""

    def __init__(self, scores):
        super().__init__(lambda x: scores[: x.shape[0]])


def test_streams_in_a_table(tmp_path):
    """Misses, false accepts, delay, confusion and curve, and runs of several seeds."""
    good, silent = scored({(11, 1): 0.9, (40, 2): 0.7})[None], scored({})[None]
    events = [[(1.0, 1.5, 1)]]
    found = compare(
        {"good": Stored(good), "runs": [Stored(good), Stored(silent)]},
        (good, events), task="stream", decision=DECISION, step=0.1,
    )  # fmt: skip
    row, runs = found.rows
    assert (row["miss_rate"], row["mean_delay"]) == (0, pytest.approx(-0.3))
    assert row["false_accepts_per_hour"] == pytest.approx(360)
    assert (runs["miss_rate"], runs["run_values"]["miss_rate"]) == (0.5, [0, 1])
    assert "runs: 1 of 2 runs detected nothing." in found.notes
    assert found.streams["good"]["confusion"] == {"1": {"1": 1}, "None": {"2": 1}}
    expected = [p._asdict() for p in StreamData(good, events, 0.1).curve(DECISION)]
    assert found.to_dict()["streams"]["good"]["curve"] == expected
    assert "false accepts an hour" in found.markdown()
    page = found.report(tmp_path / "report") / "report.md"
    assert "misses" in page.read_text()
    one = DECISION.at(0.8)
    each = compare({"a": Stored(good), "b": Stored(good)}, (good, events), task="stream",
                   decision={"a": DECISION, "b": one}, step=0.1)  # fmt: skip
    assert [r["false_accepts_per_hour"] for r in each.rows] == pytest.approx([360, 0])


def test_voice_activity_in_a_table():
    """Against labels by hand, and against the teacher where there is one."""
    labels = np.asarray([[1, 1, 0, 0, 0]])
    student, teacher = np.asarray([[0.9, 0.4, 0.6, 0.4, 0.1]]), np.asarray([[0.9, 0.8, 0.6, 0, 0]])
    found = compare(
        {"teacher": Stored(teacher), "student": Stored(student[..., None])},
        (np.zeros((1, 5, 4)), labels), task="stream",
    )  # fmt: skip
    assert found.task == "frames"
    row = found.rows[1]
    assert row["auc"] == pytest.approx(4.5 / 6)
    assert row["accuracy"] == pytest.approx(3 / 5)
    assert row["agreement"] == pytest.approx(4 / 5)
    assert found.rows[0]["agreement"] == 1
    assert found.to_dict()["streams"]["student"]["true_positives"] == [0, 0.5, 0.5, 1, 1]


def test_streams_that_do_not_fit_are_refused():
    good = scored({})[None]
    for message, arguments in (
        ("both `decision` and `step`", {"task": "stream", "step": 0.1}),
        ("one for each candidate", {"task": "stream", "step": 0.1, "decision": {"b": DECISION}}),
        ('are for `task="stream"`', {"step": 0.1}),
    ):
        with pytest.raises(ValueError, match=message):
            compare({"a": Stored(good)}, (good, [[]]), **arguments)
    with pytest.raises(ValueError, match=r"Labels of shape \(1, 7\) don't fit"):
        compare({"a": Stored(good)}, (good, np.zeros((1, 7))), task="stream")
    events = {"task": "stream", "step": 0.1, "decision": DECISION}
    for error, message, data, arguments in (
        (ValueError, "must be a pair", good, events),
        (ValueError, "1 recordings and 2 of these", (good, [[], []]), events),
        (ValueError, "are not for task=", (good, [[]]), {**events, "missing_label": -1}),
        (ValueError, "resamples=50", (good, [[]]), {**events, "resamples": 50}),
        (TypeError, "Received: decision=0.5", (good, [[]]), {**events, "decision": 0.5}),
    ):
        with pytest.raises(error, match=message):
            compare({"a": Stored(good)}, data, **arguments)
    with pytest.raises(ValueError, match=r"'a' gives shape \(1, 3\), but events need"):
        compare({"a": Stored(np.zeros((1, 3)))}, (good, [[]]), **events)


def test_data_that_does_not_fit_is_refused():
    rows = scored({})
    for arguments, message in (
        (([rows], [[]], 0), "`step` must be greater than 0"),
        (([rows], [[], []], 0.1), "Received: 1 and 2"),
        (([rows], [[(9.0, 11.0, 1)]], 0.1), "inside its recording of 10 seconds"),
        (([rows], [[(2.0, 1.0, 1)]], 0.1), "must start before it ends"),
        (([rows], [[(1.0, 2.0, 99)]], 0.1), "classes of the scores, counted from 0"),
        (([rows], [[(1.0, 2.0)]], 0.1), "tuples `.start, end, word.` for each recording"),
        (([rows], [(1.0, 2.0, 1)], 0.1), "for recording 0: .1.0, 2.0, 1."),
        (([rows], [[(1.0, 2.0, "yes")]], 0.1), "the index of a class"),
    ):
        with pytest.raises(ValueError, match=message):
            StreamData(*arguments)


def test_frames_by_hand():
    """Of the 6 pairs of a frame with speech and one without, 4 are right and one is equal."""
    found = frames([0.9, 0.4, 0.6, 0.4, 0.1], [1, 1, 0, 0, 0])
    assert found.auc == pytest.approx((3 + 1.5) / 6)
    assert found.agreement == pytest.approx(3 / 5)
    np.testing.assert_allclose(found.true_positives, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(found.false_positives, [0, 0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(found.thresholds, [np.inf, 0.9, 0.6, 0.4, 0.1])
    assert math.isnan(frames([0.5, 0.2], [1, 1]).auc)


def test_frames_agree_with_a_teacher():
    generator = np.random.default_rng(0)
    teacher, scores = generator.random((4, 200)), generator.random((4, 200))
    found = frames(scores, teacher, threshold=0.3, like=0.7)
    assert found.agreement == np.mean((scores >= 0.3) == (teacher >= 0.7))
    positive, negative = scores[teacher >= 0.7], scores[teacher < 0.7]
    assert found.auc == pytest.approx(np.mean(positive[:, None] > negative))
    assert frames(teacher, teacher, 0.7, 0.7)[:2] == (1, 1)
    with pytest.raises(ValueError, match=r"Received: \(3,\) and \(2,\)"):
        frames(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="must be finite"):
        frames([np.nan, 0], [0, 1])
