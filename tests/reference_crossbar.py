"""A crossbar cell by cell: loops over inputs, tiles, slices, columns and rows; no tensors."""

from __future__ import annotations

import math


def nearest_level(v, bits, bound, unipolar):
    """Return the nearest level of a converter, ties to the even one."""
    if bits is not None:
        levels = 2**bits - 1 if unipolar else 2**bits - 2
        step = (1 if unipolar else 2) * bound / levels
        v = round(v / step) * step
    return min(max(v, 0.0 if unipolar else -bound), bound)


def digits(number, slices, bits):
    """Return the digits of a whole number, the most significant first."""
    found = []
    for _ in range(slices):
        found.insert(0, number % 2**bits)
        number //= 2**bits
    return found


def cells_of(w, unit, crossbar):
    """Return the conductances of a weight's cells, what each stands for, and the references."""
    share = w / unit
    if crossbar.cell_bits is None:
        return ([(share + 1) / 2], [2.0], [0.5]) if crossbar.offset else ([share], [1.0], [0.0])
    bits, slices = crossbar.cell_bits, crossbar.slices
    base, count = 2**bits, 2 ** (bits * slices)
    if crossbar.offset:
        top = count // 2 - 1
        number = min(max(round(share * top) + count // 2, 0), count - 1)
        references = digits(count // 2, slices, bits)
        sign = 1
    else:
        top = count - 1
        number = min(round(abs(share) * top), top)
        references = [0] * slices
        sign = math.copysign(1, share)
    cells = [sign * digit / (base - 1) for digit in digits(number, slices, bits)]
    worths = [(base - 1) * base ** (slices - 1 - k) / top for k in range(slices)]
    return cells, worths, [reference / (base - 1) for reference in references]


def column(cells, x, crossbar, bound):
    """Return what the converter makes of one column's current."""
    n = len(cells)
    v = sum(c * x_j for c, x_j in zip(cells, x, strict=True))
    if crossbar.ir_drop:
        a = n * crossbar.ir_drop * sum(abs(c * x_j) for c, x_j in zip(cells, x, strict=True))
        lost = 0.0
        for j in range(n):
            lost += cells[j] * x[j] * (1 - (1 - j / n) ** 2)
        v -= a * (0.5 - 0.2 * a + 0.05 * a**2) * lost
    return nearest_level(v, crossbar.adc_bits, bound, crossbar.offset)


def product(weight, x, crossbar, bound, unit=None):
    """Return y = W x of one input vector, without noise.

    Args:
        weight: Rows of a matrix [out][in].
        x: Input [in].
        crossbar: The settings.
        bound: Where converters clip.
        unit: The weight of a full cell.
    """
    unit = unit or max(abs(w) for row in weight for w in row) or 1.0
    height = max(abs(v) for v in x) or 1.0
    x = [v / height for v in x]
    if crossbar.dac_bits is not None:
        x = [nearest_level(v, crossbar.dac_bits, 1.0, False) for v in x]
    y = []
    for row in weight:
        total = 0.0
        for first in range(0, len(row), crossbar.rows):
            part, inputs = row[first : first + crossbar.rows], x[first : first + crossbar.rows]
            held = [cells_of(w, unit, crossbar) for w in part]
            for k in range(crossbar.slices):
                worth = held[0][1][k]
                number = column([cells[k] for cells, _, _ in held], inputs, crossbar, bound)
                if crossbar.offset:
                    references = [refs[k] for _, _, refs in held]
                    number -= column(references, inputs, crossbar, bound)
                total += worth * number
        y.append(total * unit * height)
    return y


def patches(image, kernel, stride, padding):
    """Yield the patch under the kernel at each place: channels, then rows and columns of it."""
    channels, height, width = len(image), len(image[0]), len(image[0][0])

    def pixel(c, i, j):
        i, j = i - padding, j - padding
        return image[c][i][j] if 0 <= i < height and 0 <= j < width else 0.0

    for i in range(0, height + 2 * padding - kernel + 1, stride):
        for j in range(0, width + 2 * padding - kernel + 1, stride):
            yield [
                pixel(c, i + k, j + m)
                for c in range(channels)
                for k in range(kernel)
                for m in range(kernel)
            ]


def wire_losses(cells, x, wire):
    """Solve one column's circuit: cells between rows at x volts and a wire that ends at 0 volts.

    Rows that do not spike are cut off (one transistor a cell). Row 0 is next to the converter.

    Returns:
        The current that reaches the converter.
    """
    n = len(cells)
    conductances = [c if v else 0.0 for c, v in zip(cells, x, strict=True)]
    # Kirchhoff: node j, g_j (x_j - u_j) = (u_j - u_{j-1}) / r + (u_j - u_{j+1}) / r, u_{-1} = 0.
    matrix = [[0.0] * n for _ in range(n)]
    right = [g * v for g, v in zip(conductances, x, strict=True)]
    for j in range(n):
        matrix[j][j] = conductances[j] + (2 if j < n - 1 else 1) / wire
        if j > 0:
            matrix[j][j - 1] = -1 / wire
        if j < n - 1:
            matrix[j][j + 1] = -1 / wire
    for j in range(n - 1):  # the matrix is tridiagonal
        factor = matrix[j + 1][j] / matrix[j][j]
        matrix[j + 1][j + 1] -= factor * matrix[j][j + 1]
        right[j + 1] -= factor * right[j]
    voltages = [0.0] * n
    for j in reversed(range(n)):
        above = matrix[j][j + 1] * voltages[j + 1] if j < n - 1 else 0.0
        voltages[j] = (right[j] - above) / matrix[j][j]
    return voltages[0] / wire
