"""Students over a window of frames as files that run frame by frame.

Converters make the file of a window, with its integers and scales; it is rewritten operator by
operator, so that a stream computes the very same numbers.
"""

from keras_distill.tflite.streaming.decision import Decision, Detection
from keras_distill.tflite.streaming.operators import LateError, streamed
from keras_distill.tflite.streaming.options import Stream
from keras_distill.tflite.streaming.rewriting import Streamed

__all__ = ["Decision", "Detection", "LateError", "Stream", "Streamed", "streamed"]
