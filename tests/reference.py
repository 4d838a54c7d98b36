"""Slow, literal equations that the package is checked against; one number at a time."""

from __future__ import annotations

import math


def mean_std(values):
    """Mean and population standard deviation."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def norm(values):
    """L2 norm of a flat list."""
    return math.sqrt(sum(v * v for v in values))


def hsv(weights, xi, *, sigma, gamma=1.0, sigmas=6.0):
    """Delta = gamma R sigma xi for one tensor, R = sigmas * population std."""
    width = sigmas * mean_std(weights)[1]
    return [gamma * width * sigma * x for x in xi]


def gav(delta, grad, *, alpha):
    """v = alpha ||Delta|| g / ||g|| for one tensor."""
    scale = alpha * norm(delta) / norm(grad)
    return [scale * g for g in grad]


def sam(grads, *, rho):
    """e = rho g / ||g|| with one norm over all tensors."""
    total = norm([g for grad in grads for g in grad])
    return [[rho * g / total for g in grad] for grad in grads]


def asam(weights, grads, *, rho):
    """e = rho w^2 g / || |w| g || with one norm over all tensors."""
    total = norm([abs(w) * g for ws, gs in zip(weights, grads) for w, g in zip(ws, gs)])
    return [[rho * w * w * g / total for w, g in zip(ws, gs)] for ws, gs in zip(weights, grads)]


def awp(weights, grad, *, kappa):
    """v = kappa ||w|| g / ||g|| for one tensor."""
    scale = kappa * norm(weights) / norm(grad)
    return [scale * g for g in grad]


def running_mean(values):
    """w <- w + (w_new - w) / (n + 1), the first one copied."""
    averages, current = [], 0.0
    for n, value in enumerate(values):
        current += (value - current) / (n + 1)
        averages.append(current)
    return averages


def sgd_steps(weight, gradient, *, lr, steps, displacement=None, momentum=0.0, decay=0.0):
    """Plain SGD on a list, the gradient taken at ``weight + displacement(step)``."""
    weight, buffer = list(weight), [0.0] * len(weight)
    for step in range(steps):
        v = [0.0] * len(weight) if displacement is None else displacement(step, weight)
        g = gradient([w + d for w, d in zip(weight, v)])
        g = [gi + decay * w for gi, w in zip(g, weight)]
        buffer = list(g) if step == 0 else [momentum * b + gi for b, gi in zip(buffer, g)]
        weight = [w - lr * b for w, b in zip(weight, buffer)]
    return weight
