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


def rld(t, s, labels, alpha, beta, temperature, standardized=False):
    """Sample by sample, with the classes that take part in each term listed."""
    if standardized:
        t, s = standardize(t), standardize(s)
    values = np.zeros(labels.shape)
    for i in np.ndindex(labels.shape):
        y, top = labels[i], t[i].argmax()
        log_p, log_q = log_softmax(t[i] / temperature), log_softmax(s[i] / temperature)

        def against_others(log, c):
            return np.array([log[c], np.logaddexp.reduce(np.delete(log, c))])

        sure = kl(against_others(log_p, top), against_others(log_q, y))
        below = np.flatnonzero(t[i] < t[i][y])
        rest = 0.0
        if len(below):
            rest = kl(*(log_softmax(z[i][below] / temperature) for z in (t, s)))
        values[i] = alpha * sure + beta * rest
    return temperature**2 * values


def mlkd(t, s, temperatures, standardized=False):
    if standardized:
        t, s = standardize(t), standardize(s)
    shape, classes = t.shape[:-1], t.shape[-1]
    t, s = t.reshape(-1, classes), s.reshape(-1, classes)
    values = np.zeros(len(t))
    for T in temperatures:
        values += T**2 * kl(log_softmax(t / T), log_softmax(s / T))
        p, q = softmax(t / T), softmax(s / T)
        for i in range(len(t)):
            values[i] += sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for j in range(len(t)))
        values += np.linalg.norm(p.T @ p - q.T @ q) ** 2 / classes
    return values.reshape(shape)


def ctkd(t, s, state, start=1.0, span=20.0):
    return soft_targets(t, s, start + span / (1 + np.exp(-np.float64(state.raw.numpy()))))


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


def skewed_kl(t, s, alpha, reverse=False, temperature=1.0):
    """Equation 4 of DistiLLM, and the reverse divergence below it."""
    p, q = softmax(t / temperature), softmax(s / temperature)
    if reverse:
        divergence = (q * np.log(q / ((1 - alpha) * p + alpha * q))).sum(-1)
    else:
        divergence = (p * np.log(p / (alpha * p + (1 - alpha) * q))).sum(-1)
    return temperature**2 * divergence


def with_labels(t, s, labels, temperature, label_weight):
    log_q = np.take_along_axis(log_softmax(s), labels[..., None], -1)[..., 0]
    return (1 - label_weight) * soft_targets(t, s, temperature) - label_weight * log_q


def margin_mse(t, s):
    ours, theirs = (x[..., :1] - x[..., 1:] for x in (s, t))
    return ((ours - theirs) ** 2).mean(-1)


def teacher_bounded_regression(t, s, labels, margin):
    error_s, error_t = ((s - labels) ** 2).sum(-1), ((t - labels) ** 2).sum(-1)
    return np.where(error_s + margin > error_t, error_s, 0.0)


def hint(t, s):
    return ((t - s) ** 2).reshape(len(s), -1).mean(-1)


def average_pool(x, sizes):
    """(batch, height, width, channels) averaged over parts: the larger map over the smaller."""
    out = np.zeros((len(x), *sizes, x.shape[-1]))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            top, bottom = i * x.shape[1] // sizes[0], -(-(i + 1) * x.shape[1] // sizes[0])
            left, right = j * x.shape[2] // sizes[1], -(-(j + 1) * x.shape[2] // sizes[1])
            out[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    return out


def attention_transfer(t, s, power=2):
    if t.ndim == s.ndim == 4:
        sizes = np.minimum(t.shape[1:3], s.shape[1:3])
        t, s = average_pool(t, sizes), average_pool(s, sizes)
    maps = []
    for x in (t, s):
        q = (np.abs(x) ** power).sum(-1).reshape(len(x), -1)
        norm = np.sqrt((q**2).sum(-1, keepdims=True))
        maps.append(q / np.where(norm > 0, norm, 1))
    return ((maps[0] - maps[1]) ** 2).mean(-1)


def channel_wise(t, s, temperature):
    t = t.reshape(len(t), -1, t.shape[-1]).swapaxes(1, 2) / temperature
    s = s.reshape(len(s), -1, s.shape[-1]).swapaxes(1, 2) / temperature
    return temperature**2 * kl(log_softmax(t), log_softmax(s)).mean(-1)


def variational_information(t, s, state):
    variance = np.logaddexp(0, np.float64(state.raw.numpy())) + 1e-5
    values = (np.log(variance) + (t - s) ** 2 / variance) / 2
    return values.reshape(len(s), -1).mean(-1)


def relation(a, b, heads=None, causal=False):
    """Log of softmax(a bᵀ / √d), shape (batch, heads, steps, steps)."""
    if heads:
        a, b = (x.reshape(*x.shape[:2], heads, -1) for x in (a, b))
    scores = np.einsum("bqhd,bkhd->bhqk", a, b) / np.sqrt(a.shape[-1])
    if causal:
        scores[..., np.triu(np.ones(scores.shape[-2:], bool), 1)] = -1e9
    return log_softmax(scores)


def attention_map(t, s, heads=None, causal=False):
    return kl(relation(*t[:2], heads, causal), relation(*s[:2], heads, causal)).mean((1, 2))


def value_relation(t, s, heads=None):
    return kl(relation(t, t, heads), relation(s, s, heads)).mean((1, 2))


def convolve(x, kernel):
    """Same-size convolution of (batch, height, width, channels)."""
    kernel = np.float64(kernel)
    h, w = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(x, ((0, 0), (h, h), (w, w), (0, 0)))
    out = 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            out = out + padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
    return out


def normalize(x, layer):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(variance + 1e-5) * layer.gamma.numpy() + layer.beta.numpy()


def review(t, s, state):
    deeper, total = None, 0
    for i in reversed(range(len(s))):
        x = normalize(convolve(s[i], state.enter[i].kernel.numpy()), state.enter_norm[i])
        if deeper is not None:
            factor = x.shape[1] // deeper.shape[1], x.shape[2] // deeper.shape[2]
            deeper = deeper.repeat(factor[0], 1).repeat(factor[1], 2)
            both = np.concatenate([x, deeper], -1)
            z = convolve(both, state.attend[i].kernel.numpy()) + state.attend[i].bias.numpy()
            z = 1 / (1 + np.exp(-z))
            x = x * z[..., :1] + deeper * z[..., 1:]
        deeper = x
        fused = normalize(convolve(x, state.leave[i].kernel.numpy()), state.leave_norm[i])
        sizes = np.minimum(fused.shape[1:3], t[i].shape[1:3])
        fused, target = average_pool(fused, sizes), average_pool(t[i], sizes)
        stage, weights, weight = hint(target, fused), 1.0, 1.0
        for size in (4, 2, 1):
            if size < sizes[0]:
                weight /= 2
                weights += weight
                parts = average_pool(target, (size, size)), average_pool(fused, (size, size))
                stage = stage + weight * hint(*parts)
        total = total + stage / weights
    return total


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def relational_distance(t, s):
    relations = []
    for x in (t, s):
        x = x.reshape(len(x), -1)
        d = np.linalg.norm(x[:, None] - x[None], axis=-1)
        relations.append(d / d[d > 0].mean() if (d > 0).any() else d)
    return huber(relations[0] - relations[1]).mean(1)


def relational_angle(t, s):
    relations = []
    for x in (t, s):
        x = x.reshape(len(x), -1)
        a = np.zeros((len(x),) * 3)
        for i, j, k in np.ndindex(a.shape):
            u, v = x[j] - x[i], x[k] - x[i]
            if u.any() and v.any():
                a[i, j, k] = u @ v / (np.linalg.norm(u) * np.linalg.norm(v))
        relations.append(a)
    return huber(relations[0] - relations[1]).mean((1, 2))


def similarity_preserving(t, s):
    relations = []
    for x in (t, s):
        x = x.reshape(len(x), -1)
        g = x @ x.T
        norm = np.linalg.norm(g, axis=1, keepdims=True)
        relations.append(g / np.where(norm > 0, norm, 1))
    return ((relations[0] - relations[1]) ** 2).sum(1) / len(t)


def embedding(x, head):
    x = x.reshape(len(x), -1) @ np.float64(head.kernel.numpy()) + head.bias.numpy()
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def contrastive(t, s, keys, state, temperature, others=None):
    """Sample by sample; `others` are all but the sample itself unless given."""
    n = state.samples
    drawn = np.arange(n) if others is None else others
    k = n - 1 if others is None else len(others)
    total = np.zeros(len(keys))
    for x, head, memory, log_z in (
        (s, state.student_head, state.teacher_memory, state.log_z.numpy()[0]),
        (t, state.teacher_head, state.student_memory, state.log_z.numpy()[1]),
    ):
        similarities = embedding(x, head) @ np.float64(memory.numpy()).T
        e = np.exp(similarities / temperature - np.float64(log_z))
        h = e / (e + k / n)
        for i, key in enumerate(keys):
            total[i] += -np.log(h[i, key]) - sum(np.log(1 - h[i, j]) for j in drawn if j != key)
    return total


def convolve_with_bias(x, layer):
    return convolve(x, layer.kernel.numpy()) + np.float64(layer.bias.numpy())


def mgd(t, s, state, kept=1.0):
    """`kept`, shape `(batch, height, width, 1)`, is 0 where the student's features are masked."""
    hidden = np.maximum(convolve_with_bias(kept * s, state.first), 0)
    return hint(t, convolve_with_bias(hidden, state.second))


def pkd(t, s):
    axes = tuple(range(s.ndim - 1))
    t, s = ((x - x.mean(axes)) / (x.std(axes) + 1e-6) for x in (t, s))
    return hint(t, s) / 2


def cirkd(t, s, temperature=0.1):
    """Image by image and pixel by pixel."""
    similarities = []
    for x in (t, s):
        x = x.reshape(len(x), -1, x.shape[-1])
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        similarities.append(np.einsum("iac,jbc->ijab", x, x) / temperature)
    log_p, log_q = map(log_softmax, similarities)
    values = np.zeros(len(s))
    for i in range(len(s)):
        for j in range(len(s)):
            values[i] += np.mean([kl(*both) for both in zip(log_p[i, j], log_q[i, j], strict=True)])
    return values / len(s)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cirkd_memory(t, s, labels, state, temperature=0.1, new=True):
    """All pixels of the batch, and the region of each class in each image, beside what is there.

    Unless `new`, they are in the memories already.
    """
    t, s = (unit(x.reshape(len(x), -1, x.shape[-1])) for x in (t, s))
    labels = labels.reshape(len(labels), -1)
    seen = [range(state.classes) == y for y in labels[..., None]]
    pixels = np.concatenate([image[y.any(-1)] for image, y in zip(t, seen, strict=True)])
    regions = [
        unit(image[of].mean(0)) for image, y in zip(t, seen, strict=True) for of in y.T if of.any()
    ]
    values = np.zeros(len(s))
    for memory, added in ((state.pixel_memory, pixels), (state.region_memory, regions)):
        rows = np.float64(memory.numpy()).reshape(-1, t.shape[-1])
        rows = np.concatenate([rows[rows.any(-1)], *([added] if new else [])])
        for i, y in enumerate(seen):
            log_p, log_q = (log_softmax(x[i][y.any(-1)] @ rows.T / temperature) for x in (t, s))
            values[i] += np.mean([kl(*both) for both in zip(log_p, log_q, strict=True)])
    return values


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def box(distances):
    """Corners of the box around (0, 0)."""
    left, top, right, bottom = distances
    return np.array([-left, -top, right, bottom])


def giou(a, b):
    """Of two boxes given by corners."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
    return shared / union - (hull - union) / hull


def cross_kd(t, s, state, compares="classes"):
    """With a head of one 1x1 convolution, and for distances its exponential."""
    features, *boxes, classes = t
    axes = (0, 1, 2)
    x = (s - s.mean(axes)) / (s.std(axes) + 1e-6) * features.std(axes) + features.mean(axes)
    x = convolve_with_bias(x, state.head.layers[0])
    places = len(s), -1
    scores = sigmoid(classes).max(-1).reshape(places)
    if compares == "classes":
        y, q = sigmoid(classes), sigmoid(x)
        entropy = -y * np.log(q) - (1 - y) * np.log(1 - q)
        apart = (np.abs(y - q) * entropy).sum(-1).reshape(places)
    elif compares == "edges":
        both = (log_softmax(z.reshape(*scores.shape, 4, -1)) for z in (*boxes, x))
        apart = scores * kl(*both).mean(-1)
    else:
        theirs, ours = (z.reshape(*scores.shape, 4) for z in (boxes[0], np.exp(x)))
        apart = np.zeros(scores.shape)
        for i in np.ndindex(apart.shape):
            apart[i] = scores[i] * (1 - giou(box(theirs[i]), box(ours[i])))
    return apart.sum(1) / scores.sum(1)


def seed(t, s, state, teacher_temperature=0.01, temperature=0.2):
    """Sample by sample: to the rows of the queue and to the teacher's own."""
    t, s = (unit(x.reshape(len(x), -1)) for x in (t, s))
    queue = np.float64(state.rows.numpy())
    values = np.zeros(len(s))
    for i in range(len(s)):
        rows = np.stack([t[i], *queue[queue.any(1)]])
        log_q = log_softmax(rows @ s[i] / temperature)
        values[i] = -np.exp(log_softmax(rows @ t[i] / teacher_temperature)) @ log_q
    return values


def confident(t, s, threshold):
    sure = np.exp(log_softmax(t)).max(-1) >= threshold
    return sure * kl(log_softmax(t), log_softmax(s))
