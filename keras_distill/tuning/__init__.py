"""Choosing temperature, alpha, weights and rates on validation data; folds; ablations."""

from keras_distill.tuning.ablation import Ablation, ablate
from keras_distill.tuning.folds import CrossValidation, cross_validate
from keras_distill.tuning.search import Search, tune

__all__ = ["Ablation", "CrossValidation", "Search", "ablate", "cross_validate", "tune"]
