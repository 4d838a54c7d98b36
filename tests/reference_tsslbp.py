"""TSSL-BP neuron by neuron and step by step, in float64, written straight from the equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def psp(x: Tensor, tau_syn: float) -> Tensor:
    """Filter [T, N]."""
    result = torch.zeros(x.shape, dtype=torch.float64)
    for n in range(x.shape[1]):
        y = 0.0
        for t in range(x.shape[0]):
            y = (1 - 1 / tau_syn) * y + float(x[t, n])
            result[t, n] = y / tau_syn
    return result


def forward(currents: Tensor, tau_mem: float, tau_syn: float, threshold: float) -> dict:
    """Return d, u, s and a, each [T, N], of currents [T, N]."""
    shape = currents.shape
    d, u, s, a = (torch.zeros(shape, dtype=torch.float64) for _ in range(4))
    for n in range(shape[1]):
        m = psc = 0.0
        for t in range(shape[0]):
            d[t, n] = -m / tau_mem + float(currents[t, n])
            u[t, n] = m + d[t, n]
            s[t, n] = 1.0 if u[t, n] > threshold else 0.0
            m = float(u[t, n] * (1 - s[t, n]))
            psc = psc + (float(s[t, n]) - psc) / tau_syn
            a[t, n] = psc
    return {"d": d, "u": u, "s": s, "a": a}


def backward(state: dict, grad: Tensor, tau_mem: float, tau_syn: float, threshold: float) -> Tensor:
    """Return dL/dI [T, N] of dL/da [T, N]."""
    steps, neurons = grad.shape
    b, q = 1 / tau_mem, 0.2
    result = torch.zeros(grad.shape, dtype=torch.float64)
    for n in range(neurons):
        c = 0.0
        for t in range(steps - 1, -1, -1):
            d, u, s, a = (float(state[name][t, n]) for name in "dusa")
            slope = 0.0
            if s == 1.0:
                slope = -8.0 if d == 0 else min(max(-1 / d, -8.0), 0.0)
            response = sum(
                (1 - 1 / tau_syn) ** j / tau_syn * float(grad[t + j, n]) for j in range(steps - t)
            )
            h = -slope * response
            if t < steps - 1:
                h += -c * b * u * slope + c * (1 - b) * (1 - s)
            c = h if s == 1.0 else (1 - b) * c
            if a < 1 / (4 * tau_syn):
                z = math.exp(min(max((threshold - u) / q, -8.0), 8.0))
                result[t, n] = response * z / (1 + z) ** 2 / q
            else:
                result[t, n] = h
    return result


def network(weights: list[Tensor], x: Tensor, target: Tensor, constants: tuple) -> dict:
    """Return outputs, loss and gradients of a dense network under the kernel loss.

    ``x`` is [T, B, N], ``target`` the desired currents [T, B, classes].
    """
    grads = [torch.zeros(w.shape, dtype=torch.float64) for w in weights]
    outputs, loss = torch.zeros(target.shape, dtype=torch.float64), 0.0
    for sample in range(x.shape[1]):
        psc = psp(x[:, sample], constants[1])
        inputs, states = [], []
        for w in weights:
            inputs.append(psc)
            currents = torch.zeros(len(psc), len(w), dtype=torch.float64)
            for t in range(len(psc)):
                for i in range(len(w)):
                    currents[t, i] = sum(
                        float(w[i, j]) * float(psc[t, j]) for j in range(w.shape[1])
                    )
            states.append(forward(currents, *constants))
            psc = states[-1]["a"]
        outputs[:, sample] = psc
        grad = psc - target[:, sample]
        loss += 0.5 * float((grad**2).sum())
        for layer in range(len(weights) - 1, -1, -1):
            grad = backward(states[layer], grad, *constants)
            w = weights[layer]
            below = torch.zeros(inputs[layer].shape, dtype=torch.float64)
            for t in range(len(grad)):
                for i in range(len(w)):
                    for j in range(w.shape[1]):
                        grads[layer][i, j] += grad[t, i] * inputs[layer][t, j]
                        below[t, j] += grad[t, i] * float(w[i, j])
            grad = below
    return {"output": outputs, "loss": loss, "grads": grads}
