"""Teacher, baseline, student and exported files side by side, on held-out data."""

from keras_distill.evaluation.comparing import compare
from keras_distill.evaluation.comparison import Comparison
from keras_distill.evaluation.macs import multiply_accumulates
from keras_distill.evaluation.streams import (
    Event,
    FrameScores,
    StreamData,
    StreamScores,
    compare_streams,
    frames,
)

__all__ = [
    "Comparison",
    "Event",
    "FrameScores",
    "StreamData",
    "StreamScores",
    "compare",
    "compare_streams",
    "frames",
    "multiply_accumulates",
]
