"""A literal loop over chips: copy the network, overwrite its weights, count right answers."""

from __future__ import annotations

import copy

import torch


@torch.no_grad()
def accuracies_over_chips(model, batches, device, seeds, names, *, reset):
    """Return one accuracy for each seed, image by image, with nothing shared between chips."""
    found = []
    for seed in seeds:
        reset(model)
        chip = copy.deepcopy(model)
        for module in chip.modules():
            module.training = False
        weights = {name: chip.get_parameter(name).detach().clone() for name in names}
        programmed = device.program(weights, generator=torch.Generator().manual_seed(seed))
        for name, value in programmed.items():
            chip.get_parameter(name).data.copy_(value)
        right = images = 0
        for spikes, labels in batches:
            for b in range(len(labels)):
                reset(chip)
                out = chip(spikes[:, b : b + 1] if spikes.dim() > 2 else spikes[b : b + 1])
                out = out[0] if isinstance(out, tuple | list) else out
                counts = [0.0] * out.shape[-1]
                for step in out if out.dim() == 3 else [out]:
                    for c in range(len(counts)):
                        counts[c] += float(step[0, c])
                right += counts.index(max(counts)) == int(labels[b])
                images += 1
        found.append(right / images)
    return found


def mean_and_std(values):
    """Return the mean and the sample standard deviation, summed one by one."""
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
