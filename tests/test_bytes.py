"""Bytes that a model doesn't rescale are told; models that do are left alone."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_distill
from keras_distill import advice

PIXELS = tf.TensorSpec((8, 8, 3), tf.uint8)


def of(*chain):
    return keras.Sequential([keras.Input((8, 8, 3)), *chain, layers.Flatten(), layers.Dense(2)])


def functional():
    x = keras.Input((8, 8, 3))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(x / 255.0)))


def nested():
    return of(of(layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3)))


class Own(keras.Model):
    def call(self, x):
        return x / 255


@pytest.mark.parametrize(
    "make",
    [
        lambda: of(),
        lambda: of(layers.Conv2D(2, 3), layers.ReLU()),
        lambda: of(layers.RandomFlip(), layers.Resizing(4, 4), layers.Conv2D(2, 3)),
        nested,
    ],
)
def test_weights_on_bytes_are_told(make):
    with pytest.warns(UserWarning, match="The student gets bytes from 0 to 255.*Rescaling"):
        advice.warn_of_bytes(make(), PIXELS, "student")


@pytest.mark.parametrize(
    "make",
    [
        lambda: of(layers.Rescaling(1 / 255), layers.Conv2D(2, 3)),
        lambda: of(layers.RandomFlip(), layers.Rescaling(1 / 255)),
        lambda: of(layers.Normalization(), layers.Conv2D(2, 3)),
        lambda: of(layers.BatchNormalization(), layers.Conv2D(2, 3)),
        lambda: of(layers.Conv2D(2, 3), layers.BatchNormalization(), layers.ReLU()),
        lambda: of(keras.Sequential([layers.Rescaling(1 / 255)]), layers.Conv2D(2, 3)),
        lambda: of(layers.Lambda(lambda x: x / 255)),
        functional,
        Own,
    ],
)
def test_what_rescales_is_left_alone(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advice.warn_of_bytes(make(), PIXELS, "student")


def test_floats_and_ids_are_left_alone():
    ids = keras.Sequential([keras.Input((5,)), layers.Embedding(9, 2), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        advice.warn_of_bytes(of(), tf.TensorSpec((8, 8, 3)), "student")
        advice.warn_of_bytes(ids, tf.TensorSpec((5,), tf.uint8), "student")


def test_a_distiller_tells():
    x, y = np.zeros((4, 8, 8, 3), "uint8"), np.zeros(4, int)
    distiller = keras_distill.Distiller(of(), of())
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.warns(UserWarning, match="The student gets bytes"):
        distiller.fit(x, y, verbose=0)
