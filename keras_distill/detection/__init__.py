"""Boxes on images: annotations, what a detector's outputs mean, targets, distillation, scores.

Loaded on use: `import keras_distill.detection`.
"""

from keras_distill.detection.annotated import augmented, dataset, letterbox, letterbox_scale
from keras_distill.detection.annotations import AnnotatedImage, Annotations, read_coco, read_voc
from keras_distill.detection.app_sources import BoxSources
from keras_distill.detection.assignment import TargetBoxes, TargetClasses, targets
from keras_distill.detection.boxes import Detections, chosen, overlaps
from keras_distill.detection.heads import Head
from keras_distill.detection.inside import Decoded, Found, detector
from keras_distill.detection.related_heads import PlaceBoxes, PlaceClasses, matches
from keras_distill.detection.scores import average_precision, disagreement

__all__ = [
    "AnnotatedImage",
    "Annotations",
    "BoxSources",
    "Decoded",
    "Detections",
    "Found",
    "Head",
    "PlaceBoxes",
    "PlaceClasses",
    "TargetBoxes",
    "TargetClasses",
    "augmented",
    "average_precision",
    "chosen",
    "dataset",
    "detector",
    "disagreement",
    "letterbox",
    "letterbox_scale",
    "matches",
    "overlaps",
    "read_coco",
    "read_voc",
    "targets",
]
