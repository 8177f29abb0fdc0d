"""What an app or firmware needs to turn a file's outputs into detections, in Kotlin and C++."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from keras_distill.checks import fraction, whole_number
from keras_distill.detection.boxes import Detections, chosen
from keras_distill.detection.heads import Head

if TYPE_CHECKING:
    from keras_distill.tflite import Artifact


@dataclasses.dataclass(frozen=True)
class BoxSources:
    """Sources of a kit that turn a file's outputs into detections, for `Artifact.save`.

    For microcontrollers, `<name>_boxes.h` decodes the raw outputs of the head, from integers, and
    drops duplicates, without memory of its own beside a fixed list of candidates; and
    `boxes_main.cc` proves it on the kit's test vectors. For phones, whose file finds boxes itself
    (`detector`, whose `score`, `iou` and `most` hold), `Detections.kt` letterboxes and turns a
    picture, and gives a `List<Detection>` in its coordinates.

    Args:
        head: A `Head`: what the outputs mean.
        score: Scores below are dropped.
        iou: Of two boxes of a class that overlap more than this, the less sure one is dropped.
        most: The largest number of detections of an image. Four times as many of the surest pairs
            of place and class are looked at.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> artifact = keras_distill.tflite.convert(student, "micro", "int8", calibration=images)
    >>> artifact.save("firmware", sources=keras_distill.detection.BoxSources(head, score=0.3))
    """

    head: Head
    score: float = 0.3
    iou: float = 0.6
    most: int = 20
    #: The Kotlin sources draw what is found over a picture.
    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fraction("score", self.score)
        fraction("iou", self.iou)
        whole_number("most", self.most, 1)

    @property
    def candidates(self) -> int:
        """How many of the surest pairs of place and class are looked at."""
        return 4 * self.most

    def detections(self, outputs: Any) -> Detections:
        """What the C++ finds, in Python.

        Args:
            outputs: As in `Head.detections`.
        """
        boxes, scores = self.head.decode(outputs)
        height, width = self.head.image_size
        boxes = np.clip(boxes, 0, np.array([width, height, width, height], "float32"))
        scores = scores.copy()
        for image in scores:
            # Of equal scores, the first class comes first, then the first place.
            rest = np.argsort(-image.T.ravel(), kind="stable")[self.candidates :]
            image[rest % len(image), rest // len(image)] = -1
        return chosen(boxes, scores, self.score, self.iou, self.most)

    def cpp(self, name: str, artifact: "Artifact") -> dict[str, str]:
        """Files for microcontrollers, by path.

        Args:
            name: The kit's namespace.
            artifact: The `Artifact` with the head's raw outputs.

        Raises:
            ValueError: If its outputs aren't those of the head.
        """
        classes, boxes = self._ports(artifact)
        values = {"NAME": name, "GUARD": name.upper(), **self._constants(classes, boxes)}
        outputs = list(artifact.example_values()[1].values())
        expected = {
            self.head.classes: outputs[classes.index],
            self.head.boxes: outputs[boxes.index],
        }
        values |= _expected(self.detections(expected))
        header, main = (_filled(path, values) for path in ("boxes.h", "boxes_main.cc"))
        return {f"{name}_boxes.h": header, "boxes_main.cc": main}

    def kotlin(self, package: str, kotlin_class: str, artifact: "Artifact") -> dict[str, str]:
        """Files for phones, by path.

        Args:
            package: Kotlin package of the kit.
            kotlin_class: Name of the kit's class.
            artifact: The `Artifact` of what `detector` returned.

        Raises:
            ValueError: If it doesn't find boxes itself, or takes something else than pictures.
        """
        from keras_distill.tflite import names

        height, width = self.head.image_size
        outputs = {port.name: port.dtype for port in artifact.ports.outputs}
        if outputs != {"boxes": "float32", "scores": "float32", "labels": "int32"}:
            raise ValueError(
                "For phones, the file finds boxes itself: convert "
                "`keras_distill.detection.detector(student, head)`, its outputs as float32. "
                f"Received: a file with the outputs {outputs}"
            )
        shapes = [tuple(port.shape) for port in artifact.ports.inputs]
        if shapes != [(1, height, width, 3)]:
            raise ValueError(
                f"The head is for images of {height} x {width} pixels in three colors. Received: a "
                f"file that takes {shapes}"
            )
        values = {
            "PACKAGE": package,
            "CLASS": kotlin_class,
            "LABELS": ", ".join(map(names.kotlin_string, self.head.class_names)),
        }
        return {"Detections.kt": _filled("Detections.kt", values)}

    def _ports(self, artifact: "Artifact") -> tuple[Any, Any]:
        """The outputs of classes and boxes, as C++ names them."""
        from keras_distill.tflite.micro import sources

        ports = artifact.ports.outputs
        known: dict[Any, Any] = {port.name: i for i, port in enumerate(ports)}
        known |= {i: i for i in range(len(ports))}
        found = []
        for output in (self.head.classes, self.head.boxes):
            if output not in known:
                raise ValueError(
                    f"The head's outputs are {self.head.classes!r} and {self.head.boxes!r}, but "
                    f"the file's are {[port.name for port in ports]}: convert the student, and "
                    "name its outputs by `classes=` and `boxes=` of the head."
                )
            found.append(sources.Port(ports[known[output]], known[output], "Output"))
        shapes = [np.empty(port.shape, bool) for port in found]
        self.head.picked({self.head.classes: shapes[0], self.head.boxes: shapes[1]})
        return found[0], found[1]

    def _constants(self, classes: Any, boxes: Any) -> dict[str, Any]:
        """What the header's template names, of two `tflite.micro.sources.Port`s."""
        from keras_distill.tflite.micro import sources

        head, number = self.head, sources.number
        plain = head.activation is not None
        return {
            "CLASSES_STRUCT": classes.struct,
            "BOXES_STRUCT": boxes.struct,
            "CLASSES_TYPE": classes.type,
            "BOXES_TYPE": boxes.type,
            "CLASSES_VALUE": _value(classes),
            "BOXES_VALUE": _value(boxes),
            "ACTIVATED": "value" if plain else "1.0f / (1.0f + std::exp(-value))",
            "MOST": self.most,
            "CANDIDATES": self.candidates,
            "SCORE": number(self.score),
            "IOU": number(self.iou),
            "PLACES": head.places,
            "LABELS": len(head.class_names),
            "HEIGHT": number(head.image_size[0]),
            "WIDTH": number(head.image_size[1]),
            "EDGES": self._edges(boxes).rstrip("\n"),
        }

    def _edges(self, boxes: Any) -> str:
        from keras_distill.tflite.micro import sources

        head, number = self.head, sources.number
        if head.boxes_as == "deltas":
            rows = sources.rows([number(x) for x in head.anchors.ravel()], 8)
            factors = dict(zip("XYWH", map(number, head.variances), strict=True))
            named = {f"VARIANCE_{axis}": factor for axis, factor in factors.items()}
            return _filled("anchors.inc", {"ANCHORS": rows, **named})
        levels = [
            f"{{{stride}, {rows}, {columns}}}"
            for stride, (rows, columns) in zip(head.strides, head.grids, strict=True)
        ]
        distance = "    return std::max(Side(boxes[index]), 0.0f);"
        if head.boxes_as == "edges":
            distance = _MEAN.replace("@BINS@", str(boxes.shape[-1]))
        return _filled(
            "grids.inc",
            {
                "LEVEL_COUNT": len(levels),
                "LEVELS": ", ".join(levels),
                "PER_CELL": head.per_cell,
                "DISTANCE": distance,
            },
        )


#: The mean of a distribution over bins.
_MEAN = """    constexpr int kBins = @BINS@;
    const Sides* logits = boxes + kBins * index;
    const float largest = Side(*std::max_element(logits, logits + kBins));
    float total = 0.0f;
    float mean = 0.0f;
    for (int bin = 0; bin < kBins; ++bin) {
      const float share = std::exp(Side(logits[bin]) - largest);
      total += share;
      mean += share * static_cast<float>(bin);
    }
    return mean / total;"""


def _value(port: Any) -> str:
    """An expression for what `q` of a port stands for."""
    from keras_distill.tflite.micro import sources

    if not port.scale:
        return "q"
    zero = f" - {port.zero_point}" if port.zero_point >= 0 else f" + {-port.zero_point}"
    return f"static_cast<float>(static_cast<std::int32_t>(q){zero}) * {sources.number(port.scale)}"


def _expected(found: Detections) -> dict[str, str]:
    """The detections of the test vectors, as arrays of C++."""
    from keras_distill.tflite.micro import sources

    counts = (found.labels >= 0).sum(axis=1)
    rows = []
    for image, count in enumerate(counts):
        for k in range(count):
            values = (*found.boxes[image, k], found.scores[image, k], found.labels[image, k])
            rows += [sources.number(float(value)) for value in values]
    # An array of C++ has one element at least.
    rows = rows or ["0.0f"]
    return {"COUNTS": ", ".join(map(str, counts)), "EXPECTED": sources.rows(rows, 6)}


def _filled(template: str, values: Mapping[str, Any]) -> str:
    """A template of this room with every `@NAME@` replaced."""
    from keras_distill.tflite.micro import sources

    return sources.filled(template, values, __package__)
