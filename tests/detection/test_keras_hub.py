"""A detector of KerasHub, small and without weights, decoded and distilled as it is."""

import keras
import numpy as np
import pytest

import keras_distill
from keras_distill import detection


def retina_net(hub, width):
    encoder = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, width, width],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        use_pre_activation=False,
        image_shape=(64, 64, 3),
    )
    backbone = hub.models.RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=4, use_p5=False, image_shape=(64, 64, 3)
    )
    return hub.models.RetinaNetObjectDetector(
        backbone, num_classes=3, bounding_box_format="xyxy", pre_logits_num_conv_layers=1
    )


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_retina_net():
    hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    teacher, student = retina_net(hub, 16), retina_net(hub, 8)
    x = np.random.default_rng(0).uniform(0, 1, (2, 64, 64, 3)).astype("float32")
    by_level = teacher.anchor_generator(x)
    anchors = np.concatenate([np.asarray(level) for level in by_level.values()])
    head = detection.Head(
        (64, 64),
        (8, 16),
        ["a", "b", "c"],
        "deltas",
        classes="cls_logits",
        boxes="bbox_regression",
        per_cell=9,
        anchors=anchors,
    )
    outputs = {name: np.asarray(value) for name, value in teacher(x).items()}
    outputs["bbox_regression"] = np.random.default_rng(1).normal(0, 0.3, (2, head.places, 4))
    boxes, scores = head.decode(outputs)
    want = keras.utils.bounding_boxes.decode_deltas_to_boxes(
        anchors=keras.ops.convert_to_tensor(anchors),
        boxes_delta=keras.ops.convert_to_tensor(outputs["bbox_regression"], "float32"),
        encoded_format="center_xywh",
        anchor_format="xyxy",
        box_format="xyxy",
    )
    np.testing.assert_allclose(boxes, want, rtol=1e-4, atol=1e-3)
    assert scores.shape == (2, head.places, 3)
    matches = detection.matches(student=head, teacher=head)
    distiller = keras_distill.Distiller(student, teacher, matches, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(1e-4), run_eagerly=True)
    first = distiller.train_on_batch(x, return_dict=True)
    for _ in range(5):
        last = distiller.train_on_batch(x, return_dict=True)
    assert last["classes"] < first["classes"]
