"""What the outputs of a detector mean: which place each row is about, and how boxes are given."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import special

from keras_distill.checks import one_of, positive, size_of_images, whole_number
from keras_distill.detection.boxes import Detections, chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The outputs of a detector that looks at each place of several grids (levels).

    A level of stride s has `ceil(height / s) · ceil(width / s)` cells, row by row. The outputs hold
    all levels, one after the other, and `per_cell` places for each cell: classes of shape
    `(batch, places, classes)`, each decided by itself, logits or their sigmoid (`activation`);
    and boxes, which `boxes_as` describes:

    - `"distances"`: from the middle of the cell to the left, top, right and bottom edge, in
      strides, shape `(batch, places, 4)`, below 0 taken for 0;
    - `"edges"`: logits of a distribution over 0, 1, 2, ... strides for each of these distances,
      shape `(batch, places, 4, bins)`;
    - `"deltas"`: against `anchors`: shift of the center in widths and heights, and the logarithms
      of the factors of width and height, each divided by its one of `variances`, shape
      `(batch, places, 4)`.

    Args:
        image_size: `(height, width)` of the images that the model sees.
        strides: Pixels from one cell to the next, for each level in order.
        class_names: Names of the classes, in the order of the outputs.
        boxes_as: `"distances"`, `"edges"` or `"deltas"`.
        classes: Name or index of the output of classes.
        boxes: Name or index of the output of boxes.
        per_cell: Places for each cell: 1, or the number of anchors.
        anchors: For `"deltas"`, left, top, right and bottom edge of each place's anchor, in pixels,
            shape `(places, 4)`.
        activation: `"sigmoid"` if the model ends in it, so that classes are probabilities.
            Defaults to `None`: they are logits.
        variances: For `"deltas"`, what the four values are multiplied by before they are used,
            such as SSD's `(0.1, 0.1, 0.2, 0.2)`. Where weights of 10, 10, 5 and 5 are given
            instead, these are their inverses.

    Raises:
        ValueError: If an argument is out of its range, or they don't fit together.

    Example:

    >>> head = keras_distill.detection.Head((192, 256), (8, 16), ["RBC", "WBC"], "edges")
    >>> head.places
    960
    """

    image_size: tuple[int, int]
    strides: tuple[int, ...]
    class_names: tuple[str, ...]
    boxes_as: str = "distances"
    classes: str | int = "classes"
    boxes: str | int = "boxes"
    per_cell: int = 1
    anchors: Any = dataclasses.field(default=None, repr=False)
    activation: str | None = None
    variances: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", size_of_images(self.image_size))
        for name in ("strides", "class_names"):
            if isinstance(getattr(self, name), (str, int)):
                raise ValueError(
                    f"`{name}` must be a list. Received: {name}={getattr(self, name)!r}"
                )
        strides = tuple(whole_number("strides", stride, 1) for stride in self.strides)
        object.__setattr__(self, "strides", strides)
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(
                "`class_names` must be different, for heads are related by them. Received: "
                f"class_names={self.class_names}"
            )
        one_of("boxes_as", self.boxes_as, ("distances", "edges", "deltas"))
        whole_number("per_cell", self.per_cell, 1)
        checked_activation(self.activation)
        self._check_places()
        self._check_variances()
        if not strides or not self.class_names:
            raise ValueError("`strides` and `class_names` must each name at least one.")
        if (self.anchors is None) == (self.boxes_as == "deltas"):
            raise ValueError(
                '`anchors` must be given for `boxes_as="deltas"`, and only then. '
                f"Received: boxes_as={self.boxes_as!r}, anchors={self.anchors!r}"
            )
        if self.anchors is not None:
            anchors = np.asarray(self.anchors, "float32")
            object.__setattr__(self, "anchors", anchors)
            if not np.isfinite(anchors).all():
                raise ValueError("`anchors` must be finite. Received: NaN or infinity in them")
            if anchors.shape != (self.places, 4):
                raise ValueError(
                    f"`anchors` must have the shape {(self.places, 4)}: levels of "
                    f"{list(self.grids)} cells with {self.per_cell} each. "
                    f"Received: shape {anchors.shape}"
                )

    def _check_places(self) -> None:
        places = self.classes, self.boxes
        named = all(isinstance(place, str) for place in places)
        counted = all(isinstance(p, int) and not isinstance(p, bool) and p >= 0 for p in places)
        if not (named or counted) or self.classes == self.boxes:
            raise ValueError(
                "`classes` and `boxes` must be the names of two outputs, or two indices from 0. "
                f"Received: classes={self.classes!r}, boxes={self.boxes!r}"
            )

    def _check_variances(self) -> None:
        variances = tuple(positive("variances", value) for value in self.variances)
        object.__setattr__(self, "variances", variances)
        if len(variances) != 4 or (self.boxes_as != "deltas" and variances != (1.0,) * 4):
            raise ValueError(
                '`variances` must be four factors, for `boxes_as="deltas"` only. '
                f"Received: boxes_as={self.boxes_as!r}, variances={variances}"
            )

    def _key(self) -> tuple:
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Head) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """`(rows, columns)` of each level."""
        height, width = self.image_size
        return tuple((math.ceil(height / s), math.ceil(width / s)) for s in self.strides)

    @property
    def places(self) -> int:
        """The number of rows of the outputs."""
        return sum(rows * columns for rows, columns in self.grids) * self.per_cell

    def level(self, index: int) -> slice:
        """The rows of a level."""
        sizes = [rows * columns * self.per_cell for rows, columns in self.grids]
        return slice(sum(sizes[:index]), sum(sizes[: index + 1]))

    def points(self) -> np.ndarray:
        """x and y of the middle of each place's cell, and its stride, shape `(places, 3)`."""
        found = []
        for stride, (rows, columns) in zip(self.strides, self.grids, strict=True):
            y, x = np.mgrid[:rows, :columns]
            cells = np.stack([(x + 0.5) * stride, (y + 0.5) * stride, np.full(x.shape, stride)], -1)
            found.append(np.repeat(cells.reshape(-1, 3), self.per_cell, axis=0))
        return np.concatenate(found).astype("float32")

    def picked(self, outputs: Any) -> tuple[Any, Any]:
        """The outputs of classes and boxes, arrays or tensors, their shapes checked.

        Args:
            outputs: A model's or a file's outputs: a dict, a list or a tuple.

        Raises:
            ValueError: If they aren't those of this head.
        """
        try:
            classes, boxes = outputs[self.classes], outputs[self.boxes]
        except (KeyError, IndexError, TypeError) as error:
            held = list(outputs) if isinstance(outputs, dict) else type(outputs).__name__
            raise ValueError(
                f"The head's outputs are {self.classes!r} and {self.boxes!r}, but the model gives "
                f"{held}: name them by `classes=` and `boxes=`."
            ) from error
        shapes = tuple(tuple(getattr(x, "shape", np.shape(x))) for x in (classes, boxes))
        axes = 4 if self.boxes_as == "edges" else 3
        if (
            shapes[0][1:] != (self.places, len(self.class_names))
            or shapes[1][1:3] != (self.places, 4)
            or len(shapes[1]) != axes
        ):
            raise ValueError(
                f"A head of {len(self.class_names)} classes with the strides {self.strides} on "
                f"images of {self.image_size} has {self.places} places, and boxes as "
                f'"{self.boxes_as}". Received: classes of shape {shapes[0]}, boxes of shape '
                f"{shapes[1]}"
            )
        return classes, boxes

    def of(self, outputs: Any) -> tuple[np.ndarray, np.ndarray]:
        """The outputs of classes and boxes, as float32 arrays, their shapes checked.

        Args:
            outputs: A model's or a file's outputs: a dict, a list or a tuple.

        Raises:
            ValueError: If they aren't those of this head.
        """
        classes, boxes = (np.asarray(x, "float32") for x in self.picked(outputs))
        return classes, boxes

    def decode(self, outputs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Boxes in pixels and scores from 0 to 1 at every place.

        Args:
            outputs: As in `of`.

        Returns:
            `(boxes, scores)`, float32, of shapes `(batch, places, 4)`, left, top, right and bottom
            edge, and `(batch, places, classes)`.

        Raises:
            ValueError: If they aren't those of this head, or classes aren't from 0 to 1 where
                `activation` is `"sigmoid"`.
        """
        classes, boxes = self.of(outputs)
        if self.activation is None:
            classes = special.expit(classes)
        elif classes.size and (classes.min() < 0 or classes.max() > 1):
            raise ValueError(
                f"Of a head with `activation={self.activation!r}`, classes are from 0 to 1. "
                f"Received: values from {classes.min():.3g} to {classes.max():.3g}. If they are "
                "logits, leave `activation` out."
            )
        if self.boxes_as == "deltas":
            return _moved(self.anchors, boxes * np.float32(self.variances)), classes
        if self.boxes_as == "edges":
            boxes = special.softmax(boxes, axis=-1) @ np.arange(boxes.shape[-1], dtype="float32")
        boxes = np.maximum(boxes, 0)
        x, y, stride = (column[None, :, None] for column in self.points().T)
        sides = boxes * stride
        low = np.concatenate([x - sides[..., :1], y - sides[..., 1:2]], axis=-1)
        high = np.concatenate([x + sides[..., 2:3], y + sides[..., 3:]], axis=-1)
        return np.concatenate([low, high], axis=-1), classes

    def detections(
        self, outputs: Any, *, score: float = 0.05, iou: float = 0.6, most: int = 100
    ) -> Detections:
        """What is found on each image.

        Args:
            outputs: As in `decode`.
            score: Scores below are dropped.
            iou: Of two boxes of a class that overlap more than this, the less sure one is dropped.
            most: The largest number of detections of an image.
        """
        boxes, scores = self.decode(outputs)
        height, width = self.image_size
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], "float32"))
        return chosen(boxes, scores, score, iou, most)


def checked_activation(activation: str | None) -> str | None:
    """`activation`, `None` or `"sigmoid"`."""
    if activation not in (None, "sigmoid"):
        raise ValueError(
            '`activation` must be "sigmoid" for a head that ends in it, or None for one that gives '
            f"logits. Received: activation={activation!r}"
        )
    return activation


def _moved(anchors: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Anchors moved and scaled by deltas (Faster R-CNN, arXiv:1506.01497, equation 2)."""
    size = anchors[:, 2:] - anchors[:, :2]
    center = anchors[:, :2] + size / 2 + deltas[..., :2] * size
    half = size * np.exp(np.minimum(deltas[..., 2:], 10)) / 2
    return np.concatenate([center - half, center + half], axis=-1).astype("float32")
