"""The losses' formulas in float64 NumPy, straight from the papers, one value per sample."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def standardize(z):
    return (z - z.mean(-1, keepdims=True)) / (z.std(-1, keepdims=True) + 1e-7)


def soft_targets(t, s, temperature, standardized=False):
    if standardized:
        t, s = standardize(t), standardize(s)
    return temperature**2 * kl(log_softmax(t / temperature), log_softmax(s / temperature))


def soft_targets_sigmoid(t, s, temperature):
    def log_sigmoid(z):
        return -np.logaddexp(0, -z)

    t, s = t / temperature, s / temperature
    p = 1 / (1 + np.exp(-t))
    cross_entropy = -(p * log_sigmoid(s) + (1 - p) * log_sigmoid(-s))
    entropy = -(p * log_sigmoid(t) + (1 - p) * log_sigmoid(-t))
    return temperature**2 * (cross_entropy - entropy).mean(-1)


def dkd(t, s, labels, alpha, beta, temperature, standardized=False):
    """Class by class, with the target's column cut out."""
    if standardized:
        t, s = standardize(t), standardize(s)
    values = np.zeros(labels.shape)
    for i in np.ndindex(labels.shape):
        y = labels[i]
        log_p, log_q = log_softmax(t[i] / temperature), log_softmax(s[i] / temperature)
        others = np.delete(np.arange(t.shape[-1]), y)
        target_t = np.array([log_p[y], np.logaddexp.reduce(log_p[others])])
        target_s = np.array([log_q[y], np.logaddexp.reduce(log_q[others])])
        rest_t = log_softmax(t[i][others] / temperature)
        rest_s = log_softmax(s[i][others] / temperature)
        values[i] = alpha * kl(target_t, target_s) + beta * kl(rest_t, rest_s)
    return temperature**2 * values


def correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (np.sqrt((a**2).sum() * (b**2).sum()) + 1e-8)


def dist(t, s, beta, gamma, temperature, standardized=False):
    if standardized:
        t, s = standardize(t), standardize(s)
    shape, classes = t.shape[:-1], t.shape[-1]
    t = softmax(t / temperature).reshape(-1, classes)
    s = softmax(s / temperature).reshape(-1, classes)
    within = np.array([1 - correlation(a, b) for a, b in zip(t, s, strict=True)])
    across = np.mean([1 - correlation(t[:, j], s[:, j]) for j in range(classes)])
    if len(t) < 2:
        across = 0.0
    return temperature**2 * (beta * within + gamma * across).reshape(shape)


def logit_mse(t, s):
    return ((t - s) ** 2).mean(-1)


def jensen_shannon(t, s, beta, temperature=1.0, standardized=False):
    if standardized:
        t, s = standardize(t), standardize(s)
    log_p, log_q = log_softmax(t / temperature), log_softmax(s / temperature)
    if beta == 0:
        return temperature**2 * kl(log_p, log_q)
    if beta == 1:
        return temperature**2 * kl(log_q, log_p)
    log_m = np.log(beta * np.exp(log_p) + (1 - beta) * np.exp(log_q))
    return temperature**2 * (beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m))


def teacher_bounded_regression(t, s, labels, margin):
    error_s, error_t = ((s - labels) ** 2).sum(-1), ((t - labels) ** 2).sum(-1)
    return np.where(error_s + margin > error_t, error_s, 0.0)
