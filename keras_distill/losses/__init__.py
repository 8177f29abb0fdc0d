"""Distillation losses: `y_true` is what the teacher says, `y_pred` what the student says."""

from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.detection import localization_distillation, matched_classification
from keras_distill.losses.features import (
    AttentionMap,
    AttentionTransfer,
    ChannelWise,
    Hint,
    Review,
    ValueRelation,
    VariationalInformation,
)
from keras_distill.losses.presets import attention_transfer, minilm, relational, review
from keras_distill.losses.relations import (
    Contrastive,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
)
from keras_distill.losses.response import (
    DIST,
    DKD,
    JensenShannon,
    LogitMSE,
    SoftTargets,
    TeacherBoundedRegression,
)

__all__ = [
    "DIST",
    "DKD",
    "AttentionMap",
    "AttentionTransfer",
    "ChannelWise",
    "Contrastive",
    "DistillationLoss",
    "Hint",
    "JensenShannon",
    "LogitMSE",
    "RelationalAngle",
    "RelationalDistance",
    "Review",
    "SimilarityPreserving",
    "SoftTargets",
    "TeacherBoundedRegression",
    "ValueRelation",
    "VariationalInformation",
    "attention_transfer",
    "localization_distillation",
    "matched_classification",
    "minilm",
    "relational",
    "review",
]
