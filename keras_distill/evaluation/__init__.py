"""Teacher, baseline, student and exported files side by side, on held-out data."""

from keras_distill.evaluation.comparison import Comparison, compare
from keras_distill.evaluation.macs import multiply_accumulates

__all__ = ["Comparison", "compare", "multiply_accumulates"]
