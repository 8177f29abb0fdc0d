"""Boxes on images: annotations, what a detector's outputs mean, targets, distillation, scores.

Loaded on use: `import keras_distill.detection`.
"""

from keras_distill.detection.annotations import AnnotatedImage, Annotations, read_coco, read_voc
from keras_distill.detection.boxes import Detections, chosen, overlaps
from keras_distill.detection.dataset import augmented, dataset, letterbox, letterbox_scale
from keras_distill.detection.heads import Head
from keras_distill.detection.scores import average_precision, disagreement

__all__ = [
    "AnnotatedImage",
    "Annotations",
    "Detections",
    "Head",
    "augmented",
    "average_precision",
    "chosen",
    "dataset",
    "disagreement",
    "letterbox",
    "letterbox_scale",
    "overlaps",
    "read_coco",
    "read_voc",
]
