"""SLAYER as explicit loops over time, neurons and kernel taps, straight from the equations."""

from __future__ import annotations

import math


def kernel(tau, height=1.0, dt=1.0, steps=300, limit=0.01):
    """height (k dt/tau) exp(1 - k dt/tau), ended behind its peak below the limit."""
    taps = []
    for k in range(steps):
        value = height * (k * dt / tau) * math.exp(1 - k * dt / tau)
        if k * dt > tau and abs(value) < limit:
            break
        taps.append(value)
    return taps


class Network:
    """Dense layers of SLAYER neurons; signals are lists [n][i] of one sample."""

    def __init__(
        self,
        weights,
        *,
        theta=10.0,
        tau_s=10.0,
        tau_r=1.0,
        m_ref=2.0,
        tau_rho=1.0,
        scale_rho=1.0,
        dt=1.0,
        limit=0.01,
        steps=300,
    ):
        self.weights, self.theta, self.dt = weights, theta, dt
        self.eps = kernel(tau_s, 1.0, dt, steps, limit)
        self.nu = kernel(tau_r, -m_ref * theta, dt, steps, limit)
        self.width, self.scale_rho = tau_rho * theta, scale_rho

    def psp(self, x):
        """a[n] = dt sum_k eps[k] x[n-k]."""
        return [
            [
                self.dt * sum(e * x[n - k][i] for k, e in enumerate(self.eps) if n >= k)
                for i in range(len(x[0]))
            ]
            for n in range(len(x))
        ]

    def corr(self, x):
        """b[m] = dt sum_k eps[k] x[m+k]."""
        return [
            [
                self.dt * sum(e * x[m + k][i] for k, e in enumerate(self.eps) if m + k < len(x))
                for i in range(len(x[0]))
            ]
            for m in range(len(x))
        ]

    def fire(self, a):
        """A spike adds the refractory kernel to all later potentials."""
        u = [list(row) for row in a]
        s = [[0.0] * len(row) for row in a]
        for n in range(len(u)):
            for i in range(len(u[0])):
                if u[n][i] >= self.theta:
                    s[n][i] = 1 / self.dt
                    for k, v in enumerate(self.nu):
                        if n + k < len(u) and k > 0:
                            u[n + k][i] += v
        return u, s

    def rho(self, u):
        """Surrogate at a potential."""
        return self.scale_rho / self.width * math.exp(-abs(u - self.theta) / self.width)

    def forward(self, spikes):
        """Return potentials and spikes of every layer, input spikes first."""
        trains, potentials = [spikes], []
        for w in self.weights:
            x = trains[-1]
            z = [[sum(wij * s for wij, s in zip(row, step)) for row in w] for step in x]
            u, s = self.fire(self.psp(z))
            potentials.append(u)
            trains.append(s)
        return potentials, trains

    def backward(self, potentials, trains, grad):
        """Return the gradients of all weights and of the input for dE/ds of the output."""
        gradients = []
        for w, u, s in reversed(list(zip(self.weights, potentials, trains))):
            delta = [
                [g * self.rho(v) for g, v in zip(g_row, u_row)] for g_row, u_row in zip(grad, u)
            ]
            delta = self.corr(delta)
            gradients.append(
                [
                    [sum(d[i] * x[j] for d, x in zip(delta, s)) for j in range(len(w[0]))]
                    for i in range(len(w))
                ]
            )
            grad = [
                [sum(w[i][j] * d[i] for i in range(len(w))) for j in range(len(w[0]))]
                for d in delta
            ]
        return gradients[::-1], grad

    def count_loss(self, s, targets, first, last):
        """Return E and dE/ds for a window of steps."""
        steps, count = len(s), len(s[0])
        outside = [[0.0 if first <= n < last else v for v in s[n]] for n in range(steps)]
        error = self.psp(outside)
        for i in range(count):
            spikes = self.dt * sum(s[n][i] for n in range(first, last))
            for n in range(first, last):
                error[n][i] += (spikes - targets[i]) / (last - first)
        energy = 0.5 * self.dt * sum(e * e for row in error for e in row)
        return energy, self.corr([[self.dt * e for e in row] for row in error])

    def spike_time_loss(self, s, desired):
        """Return E and dE/ds."""
        error = self.psp([[a - b for a, b in zip(x, y)] for x, y in zip(s, desired)])
        energy = 0.5 * self.dt * sum(e * e for row in error for e in row)
        return energy, self.corr([[self.dt * e for e in row] for row in error])


def delayed(s, delays, dt, grad):
    """y[n] = s[n - floor(d/dt)]; return y, dE/ds and dE/dd."""
    steps, count = len(s), len(s[0])
    shift = [math.floor(d / dt) for d in delays]
    y = [[s[n - shift[i]][i] if n >= shift[i] else 0.0 for i in range(count)] for n in range(steps)]
    grad_s = [
        [grad[n + shift[i]][i] if n + shift[i] < steps else 0.0 for i in range(count)]
        for n in range(steps)
    ]
    grad_d = [
        -sum(grad[n][i] * (y[n][i] - (y[n - 1][i] if n else 0.0)) / dt for n in range(steps))
        for i in range(count)
    ]
    return y, grad_s, grad_d
