"""Boxes on images: annotations, what a detector's outputs mean, targets, distillation, scores.

Loaded on use: `import keras_distill.detection`.
"""

from keras_distill.detection.annotations import AnnotatedImage, Annotations, read_coco, read_voc
from keras_distill.detection.boxes import Detections, chosen, overlaps
from keras_distill.detection.dataset import augmented, dataset, letterbox, letterbox_scale
from keras_distill.detection.heads import Head
from keras_distill.detection.matches import PlaceBoxes, PlaceClasses, matches
from keras_distill.detection.scores import average_precision, disagreement
from keras_distill.detection.targets import BoxLoss, ClassLoss, targets

__all__ = [
    "AnnotatedImage",
    "Annotations",
    "BoxLoss",
    "ClassLoss",
    "Detections",
    "Head",
    "PlaceBoxes",
    "PlaceClasses",
    "augmented",
    "average_precision",
    "chosen",
    "dataset",
    "disagreement",
    "letterbox",
    "letterbox_scale",
    "matches",
    "overlaps",
    "read_coco",
    "read_voc",
    "targets",
]
