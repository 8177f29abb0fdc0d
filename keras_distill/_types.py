"""Names that annotations and saved files use in the whole package."""

from typing import Any, TypeAlias

#: Under which Keras registers our classes: saved files hold it.
PACKAGE = "keras_distill"

#: A tensor of the backend, or what converts to one (an array, nested lists of numbers).
Tensor: TypeAlias = Any
#: A tensor, or a list, tuple or dict of them.
Tensors: TypeAlias = Any
