"""Policy distillation: what a network learned by long trial and error, in 2 KB for firmware.

A large one learns by policy gradients, in very many steps. A small one learns its probabilities of
actions on a fiftieth of the steps, which were stored while it acted (arXiv:1511.06295).

    pip install gymnasium
    python examples/policy.py CartPole-v1 firmware
"""

import sys
from functools import partial

import gymnasium
import keras
import numpy as np
from keras import layers

import keras_distill

DISCOUNT, ENVIRONMENTS = 0.99, 16


def network(environment, *units):
    """Logits of the actions from an observation."""
    hidden = [layers.Dense(width, activation="tanh") for width in units]
    inputs = keras.Input(environment.single_observation_space.shape)
    return keras.Sequential([inputs, *hidden, layers.Dense(int(environment.single_action_space.n))])


def answer(weights, x):
    """Logits by a network of these weights, in NumPy, which is faster for so few values."""
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.tanh(x @ kernel + bias)
    return x @ weights[-2] + weights[-1]


def play(logits, environment, steps, rng):
    """Observations, actions, rewards and ends of episodes, (steps, environments, ...) each."""
    observations, _ = environment.reset(seed=int(rng.integers(2**31)))
    played = []
    for _ in range(steps):
        answers = logits(observations)
        actions = (answers + rng.gumbel(size=answers.shape)).argmax(-1)
        after, rewards, ended, cut, _ = environment.step(actions)
        played.append((observations, actions, rewards, ended | cut))
        observations = after
    return [np.stack(part) for part in zip(*played, strict=True)]


def learn_by_trial(model, environment, rounds, steps, rate, rng):
    """Policy gradients: cross-entropy of the actions, weighted by the rewards that followed."""
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, rounds))
    model.compile(adam, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(rounds):
        policy = partial(answer, model.get_weights())
        x, actions, rewards, ends = play(policy, environment, steps, rng)
        gains, following = np.zeros_like(rewards), 0.0
        for i in reversed(range(steps)):
            following = gains[i] = rewards[i] + DISCOUNT * np.where(ends[i], 0.0, following)
        gains = ((gains - gains.mean()) / (gains.std() + 1e-6)).astype("float32").ravel()
        model.train_on_batch(np.concatenate(x), actions.ravel(), sample_weight=gains)


def score(logits, environment, seed):
    """Mean return of an episode in each environment, in which the likeliest action is taken."""
    observations, _ = environment.reset(seed=seed)
    total, running = np.zeros(ENVIRONMENTS), np.ones(ENVIRONMENTS, bool)
    while running.any():
        observations, rewards, ended, cut, _ = environment.step(logits(observations).argmax(-1))
        total += rewards * running
        running &= ~(ended | cut)
    return float(total.mean())


def main(name="CartPole-v1", output=None, seed=0, rounds=60, steps=500):
    """Mean return of a large policy, a small one after `steps` per environment, and distilled."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    environment = gymnasium.make_vec(name, num_envs=ENVIRONMENTS)
    teacher, alone, student = (network(environment, *units) for units in ((64, 64), (8,), (8,)))
    student.set_weights(alone.get_weights())
    learn_by_trial(teacher, environment, rounds, 400, 1e-2, rng)
    learn_by_trial(alone, environment, steps // 50, 50, 3e-2, rng)  # The best of ten settings.
    x = np.concatenate(play(partial(answer, teacher.get_weights()), environment, steps, rng)[0])
    soft = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, teacher, soft, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(1e-2), steps_per_execution=8)
    distiller.fit(x, batch_size=128, epochs=40, verbose=0)
    artifact = keras_distill.tflite.convert(student, "micro", "int8", calibration=x, io="float32")
    if output is not None:
        artifact.save(output)
    models = {"teacher": teacher, "student alone": alone, "student distilled": student}
    policies = {key: partial(answer, model.get_weights()) for key, model in models.items()}
    policies["distilled, int8"] = artifact.predict
    returns = {key: score(policy, environment, 10**6) for key, policy in policies.items()}
    return returns | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
