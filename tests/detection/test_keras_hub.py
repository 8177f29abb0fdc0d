"""Detectors and segmenters of KerasHub, small and without weights, distilled as they are."""

import keras
import numpy as np
import pytest
from scipy import special
from small_detectors import small_detector

import keras_distill
from keras_distill import detection, losses


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


def d_fine(hub, width):
    """Two levels of strides 16 and 32, ten queries."""
    stages = [[8, 8, 16, 1, 1, 3], [16, 8, 16, 1, 1, 3], [16, 8, width, 1, 1, 3]]
    encoder = hub.models.HGNetV2Backbone(
        stem_channels=[3, 8, 8],
        stackwise_stage_filters=[*stages, [width, 8, width, 1, 1, 3]],
        apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False, False, True, True],
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 16, width, width],
        embedding_size=8,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=(64, 64, 3),
        out_features=["stage3", "stage4"],
    )
    backbone = hub.models.DFineBackbone(
        backbone=encoder,
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=3,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=(64, 64),
        feat_strides=[16, 32],
        num_feature_levels=2,
        encoder_in_channels=[width, width],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=16,
        num_encoder_layers=1,
        hidden_expansion=0.34,
        depth_multiplier=0.34,
        eval_idx=-1,
        num_decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=1,
        out_features=["stage3", "stage4"],
        image_shape=(64, 64, 3),
        seed=0,
    )
    return hub.models.DFineObjectDetector(
        backbone, num_classes=3, bounding_box_format="xyxy", name=f"d_fine_{width}"
    )


def one_step(student, teacher, terms, x):
    """What a step reports, which changes the student and leaves the teacher as it was."""
    distiller, models = (
        keras_distill.Distiller(student, teacher, terms, alpha=0.0),
        (student, teacher),
    )
    before = [model.get_weights() for model in models]
    distiller.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    logs = distiller.train_on_batch(x, return_dict=True)
    changed = [
        any((a != b).any() for a, b in zip(old, model.get_weights(), strict=True))
        for old, model in zip(before, models, strict=True)
    ]
    assert changed == [True, False]
    return logs


def pkd(t, s):
    """Half of the squared distance of maps brought to mean 0 and variance 1, by channel."""
    t, s = (np.float64(x) for x in (t, s))
    t, s = ((x - x.mean((0, 1, 2))) / (x.std((0, 1, 2)) + 1e-6) for x in (t, s))
    return ((t - s) ** 2).mean() / 2


#: D-FINE's map of stride 16. Its queries have no order, so that those of two models aren't related.
MAP = "encoder_input_proj_bn_0"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_d_fine():
    """It teaches one of its kind, and a head of another kind."""
    hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    teacher, student = d_fine(hub, 24), d_fine(hub, 16)
    x = np.random.default_rng(0).uniform(0, 1, (4, 64, 64, 3)).astype("float32")

    def features(model, **options):
        inner = model.backbone
        return np.asarray(keras.Model(inner.input, inner.get_layer(MAP).output)(x, **options))

    assert features(teacher, training=False).shape == (4, 4, 4, 16)
    expected = pkd(features(teacher, training=False), features(student, training=True))
    places = [model.backbone.get_layer(MAP) for model in (student, teacher)]
    match = keras_distill.Match(losses.PKD(), *places, name="map")
    found = one_step(student, teacher, match, x)
    assert found["map"] == pytest.approx(expected, rel=1e-4)
    head = detection.Head((64, 64), (8, 16), ["a", "b", "c"], "edges")
    page = small_detector(head, width=16)
    towers = [layer.name for layer in page.layers if layer.output.shape == (None, 4, 4, 32)]
    match = keras_distill.Match(losses.PKD(), towers[-1], places[1], adapter="auto", name="map")
    found = one_step(page, teacher, match, x * 255)
    assert 0 < found["map"] < 2


def seg_former(hub, width):
    encoder = hub.models.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[width, 2 * width],
        image_shape=(32, 32, 3),
    )
    backbone = hub.models.SegFormerBackbone(image_encoder=encoder, projection_filters=width)
    return hub.models.SegFormerImageSegmenter(backbone, num_classes=4)


def deep_lab(hub, width):
    encoder = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, width],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        use_pre_activation=False,
        image_shape=(32, 32, 3),
    )
    backbone = hub.models.DeepLabV3Backbone(
        image_encoder=encoder,
        projection_filters=4,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P3",
        upsampling_size=2,
        dilation_rates=[2, 4],
        image_shape=(32, 32, 3),
    )
    return hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=4)


def channel_wise(t, s, temperature=4.0):
    """Of each channel, T² KL between its values as distributions over positions."""
    t, s = (np.float64(x).reshape(len(x), -1, x.shape[-1]) / temperature for x in (t, s))
    p, q = (special.softmax(x, axis=1) for x in (t, s))
    return temperature**2 * (p * np.log(p / q)).sum(1).mean()


def soft_targets(t, s, temperature=2.0):
    t, s = (special.log_softmax(np.float64(x) / temperature, axis=-1) for x in (t, s))
    return temperature**2 * (np.exp(t) * (t - s)).sum(-1).mean()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("build", [seg_former, deep_lab])
def test_segmenters(build):
    hub = pytest.importorskip("keras_hub")
    keras.utils.set_random_seed(0)
    teacher, student = build(hub, 16), build(hub, 8)
    x = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 3)).astype("float32")
    for layer in student._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    # Where they aren't told, DeepLab's outputs differ from those in inference.
    t, s = np.asarray(teacher(x, training=False)), np.asarray(student(x, training=True))
    assert t.shape == s.shape == (2, 32, 32, 4)
    terms = [losses.SoftTargets(2.0), losses.ChannelWise(4.0)]
    found = one_step(student, teacher, terms, x)
    assert found["soft_targets"] == pytest.approx(soft_targets(t, s), rel=1e-4)
    assert found["channel_wise"] == pytest.approx(channel_wise(t, s), rel=1e-4)
