"""Distillation losses: `y_true` comes from the teacher, `y_pred` from the student.

Each module holds one idea: first the mathematics as pure functions of tensors, then the
`keras.losses.Loss` that declares its settings.
"""

from keras_distill.losses.assignments import SEED
from keras_distill.losses.attention import AttentionMap, AttentionTransfer, ValueRelation
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.chunked import Chunked
from keras_distill.losses.confidence import Confident
from keras_distill.losses.contrastive import Contrastive
from keras_distill.losses.correlation import DIST
from keras_distill.losses.cross_head import CrossKD
from keras_distill.losses.curriculum import CTKD
from keras_distill.losses.decoupled import DKD
from keras_distill.losses.dense import (
    ChannelWise,
    localization_distillation,
    matched_classification,
)
from keras_distill.losses.features import Hint, VariationalInformation
from keras_distill.losses.generation import MGD
from keras_distill.losses.margins import MarginMSE
from keras_distill.losses.multilevel import MLKD
from keras_distill.losses.pixel_memory import CIRKDMemory
from keras_distill.losses.pixels import CIRKD
from keras_distill.losses.refined import RLD
from keras_distill.losses.regression import TeacherBoundedRegression
from keras_distill.losses.relations import (
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
)
from keras_distill.losses.response import JensenShannon, LogitMSE, SoftTargets
from keras_distill.losses.review import Review
from keras_distill.losses.skewed import SkewedKL
from keras_distill.losses.standardized import PKD

__all__ = [
    "CIRKD",
    "CTKD",
    "DIST",
    "DKD",
    "MGD",
    "MLKD",
    "PKD",
    "RLD",
    "SEED",
    "AttentionMap",
    "AttentionTransfer",
    "CIRKDMemory",
    "ChannelWise",
    "Chunked",
    "Confident",
    "Contrastive",
    "CrossKD",
    "DistillationLoss",
    "Hint",
    "JensenShannon",
    "LogitMSE",
    "MarginMSE",
    "RelationalAngle",
    "RelationalDistance",
    "Review",
    "SimilarityPreserving",
    "SkewedKL",
    "SoftTargets",
    "TeacherBoundedRegression",
    "ValueRelation",
    "VariationalInformation",
    "localization_distillation",
    "matched_classification",
]
