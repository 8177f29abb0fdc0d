"""What may add sources of its own to a kit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from keras_distill.tflite.artifact import Artifact


class Sources(Protocol):
    """What makes further sources of a kit, of which this package knows nothing.

    Where the Kotlin sources have `fun CLASS.draw(bitmap: Bitmap): Bitmap`, and say so by an
    attribute `draws` that is true, the sample app shows a picture of its assets with it.
    """

    def cpp(self, name: str, artifact: "Artifact") -> Mapping[str, str]:
        """Files by path, for a kit of that namespace. Headers become part of its library."""

    def kotlin(self, package: str, kotlin_class: str, artifact: "Artifact") -> Mapping[str, str]:
        """Kotlin files by path, for a kit of that package and class."""
