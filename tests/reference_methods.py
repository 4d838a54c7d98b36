"""Slow, literal updates of every training method, on a net that is written out."""

from __future__ import annotations

import math

import torch


def scores(w, x):
    """Class scores of a two-layer ReLU net: x W1^T, ReLU, W2^T."""
    return (x @ w["0.weight"].T).clamp(min=0) @ w["2.weight"].T


def loss(w, x, y):
    """Cross-entropy, written out."""
    z = scores(w, x)
    total = 0.0
    for row, label in zip(z, y.tolist(), strict=True):
        total = total - row[label] + torch.log(sum(torch.exp(value) for value in row))
    return total / len(y)


def gradient(objective, w):
    """The gradient of a function of the weights, at w."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in w.items()}
    grads = torch.autograd.grad(objective(leaves), list(leaves.values()))
    return dict(zip(leaves, grads, strict=True))


def plus(w, v, factor=1.0):
    """w + factor v."""
    return {name: w[name] + factor * v[name] for name in w}


def along(v, lengths):
    """Each tensor stretched to its length."""
    return {name: lengths[name] * v[name] / v[name].square().sum().sqrt() for name in v}


def sgd(w, grads_of, *, steps, lr, momentum=0.0, after=lambda w: w):
    """SGD whose gradient may look at the momentum buffers; ``after`` changes the weights."""
    buffers = None
    for step in range(steps):
        g = grads_of(step, w, buffers)
        buffers = g if buffers is None else {n: momentum * buffers[n] + g[n] for n in g}
        w = after({name: w[name] - lr * buffers[name] for name in w})
    return w


def samson(w, g, rho, order):
    """The radius along t^2 g, t the share of each weight in its tensor's norm, one by one."""
    shares = {}
    for name, value in w.items():
        sizes = [abs(v) for v in value.flatten().tolist()]
        norm = max(sizes) if order == math.inf else sum(v**order for v in sizes) ** (1 / order)
        shares[name] = torch.tensor([v / norm for v in sizes], dtype=value.dtype)
        shares[name] = shares[name].reshape(value.shape)
    total = math.sqrt(sum(float((shares[n] * g[n]).square().sum()) for n in w))
    return {name: rho * shares[name] ** 2 * g[name] / total for name in w}


def negative_feedback(w, delta, wider, beta, x, y):
    """Gradient of the loss of noisy scores minus a share of noisier ones, through all of them."""

    def objective(v):
        z = scores(plus(v, delta), x)
        for i, change in enumerate(wider):
            z = z - beta * 10 ** (-i) * scores(plus(v, change), x)
        return -torch.log_softmax(z / (len(wider) + 1), 1)[range(len(y)), y].mean()

    return gradient(objective, w)


def distilled(w, delta, share, t, x, y):
    """Gradient of (1 - share) L + share T^2 KL from the scores without variation, held fixed."""
    teacher = scores(w, x).detach()

    def objective(v):
        z = scores(plus(v, delta), x)
        return (1 - share) * loss(plus(v, delta), x, y) + share * t**2 * kl(teacher / t, z / t)

    return gradient(objective, w)


def straight_through(w, delta, x, y):
    """Gradients of a forward pass at w + delta sent back through w, layer by layer."""
    noisy = plus(w, delta)
    before = x @ noisy["0.weight"].T
    h = before.clamp(min=0)
    z = h @ noisy["2.weight"].T
    slope = torch.softmax(z, 1)
    slope[range(len(y)), y] -= 1
    slope = slope / len(y)
    back = (slope @ w["2.weight"]) * (before > 0)
    return {"0.weight": back.T @ x, "2.weight": slope.T @ h}


def mixed(w, delta, share, x, y):
    """lambda grad L(w + v) + (1 - lambda) grad L(w)."""
    noisy = gradient(lambda v: loss(v, x, y), plus(w, delta))
    clean = gradient(lambda v: loss(v, x, y), w)
    return {name: share * noisy[name] + (1 - share) * clean[name] for name in w}


def clipped(w, sigmas):
    """Each tensor clipped to so many of its standard deviations about 0."""
    result = {}
    for name, value in w.items():
        numbers = value.flatten().tolist()
        mean = sum(numbers) / len(numbers)
        std = math.sqrt(sum((v - mean) ** 2 for v in numbers) / len(numbers))
        bound = sigmas * std
        kept = [max(-bound, min(bound, v)) for v in numbers]
        result[name] = torch.tensor(kept, dtype=value.dtype).reshape(value.shape)
    return result


def kl(z, others):
    """KL(softmax z || softmax others), mean over rows, written out."""
    p, q = torch.softmax(z, 1), torch.softmax(others, 1)
    return (p * (p.log() - q.log())).sum() / len(z)


def attack(w, start, zeta, steps, x):
    """The displacement that moves the outputs most, by a few signed steps."""
    delta = start
    clean = scores(w, x).detach()
    for _ in range(steps):
        g = gradient(lambda v: kl(clean, scores(v, x)), plus(w, delta))
        delta = {
            name: (delta[name] + zeta / steps * w[name].abs() * torch.sign(g[name]))
            .clamp(min=-zeta * w[name].abs())
            .clamp(max=zeta * w[name].abs())
            for name in w
        }
    return delta


def regularised(w, delta, beta, x, y):
    """Gradient of L(w) + beta KL(f(w) || f(w + delta)), through both."""
    return gradient(lambda v: loss(v, x, y) + beta * kl(scores(v, x), scores(plus(v, delta), x)), w)


def quantized(w, bits):
    """Symmetric rounding of each tensor, one number at a time."""
    top = 2 ** (bits - 1) - 1
    result = {}
    for name, value in w.items():
        scale = max(abs(v) for v in value.flatten().tolist()) / top
        rounded = [scale * round(v / scale) for v in value.flatten().tolist()]
        result[name] = torch.tensor(rounded, dtype=value.dtype).reshape(value.shape)
    return result


def cells(number, bits, errors):
    """What is read of a whole number in two's complement, each bit in a cell with an error."""
    total = 0.0
    for i in range(bits):
        value = -(2 ** (bits - 1)) if i == bits - 1 else 2**i
        bit = (number >> i) & 1
        total += value * bit * (1 + errors[i])
    return total


def fixed_point(values, bits):
    """Stored whole numbers and the value of the lowest bit."""
    step = 2.0 ** (math.ceil(math.log2(max(abs(v) for v in values))) - (bits - 1))
    top = 2 ** (bits - 1)
    return [max(-top, min(top - 1, round(v / step))) for v in values], step


def vortex(w, variance, strength, rho, x, y):
    """Gradient of the loss where the right score falls and the others rise by a deviation."""

    def objective(v):
        h = (x @ v["0.weight"].T).clamp(min=0)
        z = h @ v["2.weight"].T
        rows = []
        for b in range(len(z)):
            row = []
            for i in range(z.shape[1]):
                spread = sum(variance(v["2.weight"][i, j]) * h[b, j] ** 2 for j in range(len(h[b])))
                sign = -1.0 if i == y[b] else 1.0
                row.append(z[b, i] + sign * strength * rho * spread.clamp(min=1e-12).sqrt())
            rows.append(torch.stack(row))
        return -torch.log_softmax(torch.stack(rows), 1)[range(len(y)), y].mean()

    return gradient(objective, w)


def rectified(m, v):
    """Mean and variance of max(0, N(m, v))."""
    s = v.sqrt()
    q = m / s
    below = (1 + torch.erf(q / math.sqrt(2))) / 2
    density = torch.exp(-q * q / 2) / math.sqrt(2 * math.pi)
    mean = m * below + s * density
    return mean, (m * m + v) * below + m * s * density - mean * mean


def propagated(layers, x):
    """Mean and variance through [(mean, variance) of a matrix | "relu"], x exact."""
    m, v = x, torch.zeros_like(x)
    for layer in layers:
        if layer == "relu":
            m, v = rectified(m, v)
        else:
            e, s = layer
            m, v = m @ e.T, m.square() @ s.T + v @ e.square().T + v @ s.T
    return m, v


def statistical(w, moments, penalty, x, y):
    """Gradient of the loss of moderated scores, and of the mean variance."""

    def objective(v):
        layers = [moments(v["0.weight"]), "relu", moments(v["2.weight"])]
        mean, variance = propagated(layers, x)
        z = mean / torch.sqrt(1 + math.pi * variance / 8)
        entropy = -torch.log_softmax(z, 1)[range(len(y)), y].mean()
        return entropy + penalty * variance.mean()

    return gradient(objective, w)


def sampled(w, moments, draws, x, y):
    """Gradient of the loss where each layer adds noise of its weights' variance."""

    def objective(v):
        h = x
        for name, epsilon in draws.items():
            mean, variance = moments(v[name])
            z = h @ mean.T + (h.square() @ variance.T).clamp(min=1e-12).sqrt() * epsilon
            h = z.clamp(min=0) if name == "0.weight" else z
        return -torch.log_softmax(h, 1)[range(len(y)), y].mean()

    return gradient(objective, w)


def affine(value, low, high, bits):
    """One number on 2^bits levels of a range that holds 0."""
    top = 2**bits - 1
    scale = (high - low) / top
    zero = round(-low / scale)
    level = max(0, min(top, round(value / scale) + zero))
    return scale * (level - zero)
