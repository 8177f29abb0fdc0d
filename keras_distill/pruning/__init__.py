"""Smaller students: units that leave a model, weights that become 0 or share their values.

`prune` removes whole channels, neurons and heads from a Keras 3 model, which comes out as an
ordinary smaller model. `GradualPruning`, `Sparsity` and `WeightClustering`
are callbacks for `fit`.
"""

from keras_distill.pruning.clustering import WeightClustering
from keras_distill.pruning.gradual import GradualPruning, remove_zeros
from keras_distill.pruning.sparsity import Sparsity, sparsity_of
from keras_distill.pruning.structured import kept_whole, prune

__all__ = [
    "GradualPruning",
    "Sparsity",
    "WeightClustering",
    "kept_whole",
    "prune",
    "remove_zeros",
    "sparsity_of",
]
