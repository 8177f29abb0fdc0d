"""Policy distillation: what a network learned by long trial and error, in 2 KB for firmware.

Learned by policy gradients, a policy takes very many steps in its environment. A small one learns
from the large one's probabilities of actions, on observations that were stored while the large one
acted (arXiv:1511.06295): no trial and error, and a fiftieth of the steps.

    pip install gymnasium
    python examples/policy.py CartPole-v1 firmware
"""

import sys

import gymnasium
import keras
import numpy as np
from keras import layers

import keras_distill

DISCOUNT = 0.99
ENVIRONMENTS = 16


def network(environment, *units):
    """Logits of the actions from an observation."""
    hidden = [layers.Dense(width, activation="tanh") for width in units]
    inputs = keras.Input(environment.single_observation_space.shape)
    return keras.Sequential([inputs, *hidden, layers.Dense(int(environment.single_action_space.n))])


def as_function(model):
    """The model on NumPy arrays, which is faster for so few values."""
    *hidden, last = zip(model.get_weights()[::2], model.get_weights()[1::2], strict=True)

    def logits(x):
        for kernel, bias in hidden:
            x = np.tanh(x @ kernel + bias)
        return x @ last[0] + last[1]

    return logits


def play(logits, environment, steps, rng):
    """Observations, actions, rewards and ends of episodes, (steps, environments, ...) each."""
    observations, _ = environment.reset(seed=int(rng.integers(2**31)))
    played = []
    for _ in range(steps):
        answers = logits(observations)
        actions = (answers + rng.gumbel(size=answers.shape)).argmax(-1)
        after, rewards, terminated, truncated, _ = environment.step(actions)
        played.append((observations, actions, rewards, terminated | truncated))
        observations = after
    return [np.stack(part) for part in zip(*played, strict=True)]


def learn_by_trial(model, environment, rounds, steps, rate, rng):
    """Policy gradients: cross-entropy of the actions, weighted by the rewards that followed."""
    rates = keras.optimizers.schedules.CosineDecay(rate, rounds)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rates), loss)
    for _ in range(rounds):
        x, actions, rewards, ends = play(as_function(model), environment, steps, rng)
        gains, following = np.zeros_like(rewards), 0.0
        for i in reversed(range(steps)):
            following = gains[i] = rewards[i] + DISCOUNT * np.where(ends[i], 0.0, following)
        gains = ((gains - gains.mean()) / (gains.std() + 1e-6)).astype("float32").ravel()
        model.train_on_batch(x.reshape(-1, x.shape[-1]), actions.ravel(), sample_weight=gains)


def score(logits, environment, seed):
    """Mean return of an episode in each environment, in which the likeliest action is taken."""
    observations, _ = environment.reset(seed=seed)
    total, running = np.zeros(ENVIRONMENTS), np.ones(ENVIRONMENTS, bool)
    while running.any():
        actions = logits(observations).argmax(-1)
        observations, rewards, terminated, truncated, _ = environment.step(actions)
        total += rewards * running
        running &= ~(terminated | truncated)
    return float(total.mean())


def main(name="CartPole-v1", output=None, seed=0, rounds=60, steps=8000):
    """Mean return of a large policy, a small one after so many steps, and the same distilled."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    environment = gymnasium.make_vec(name, num_envs=ENVIRONMENTS)
    teacher, alone, student = (network(environment, *units) for units in ((64, 64), (8,), (8,)))
    student.set_weights(alone.get_weights())
    learn_by_trial(teacher, environment, rounds, 400, 1e-2, rng)
    # The best of ten settings for so few steps.
    learn_by_trial(alone, environment, steps // ENVIRONMENTS // 50, 50, 3e-2, rng)

    x = play(as_function(teacher), environment, steps // ENVIRONMENTS, rng)[0]
    x = x.reshape(-1, x.shape[-1])
    soft = keras_distill.losses.SoftTargets(temperature=1.0)
    distiller = keras_distill.Distiller(student, teacher, soft, alpha=0.0)
    distiller.compile(keras.optimizers.Adam(1e-2), steps_per_execution=8)
    distiller.fit(x, batch_size=128, epochs=40, verbose=0)
    artifact = keras_distill.tflite.convert(student, "micro", "int8", calibration=x, io="float32")
    if output is not None:
        artifact.save(output)
    models = {"teacher": teacher, "student alone": alone, "student distilled": student}
    policies = {name: as_function(model) for name, model in models.items()}
    policies["distilled, int8"] = artifact.predict
    found = {name: score(policy, environment, 10**6) for name, policy in policies.items()}
    return found | {"bytes": len(artifact.tflite)}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
