"""Corruptions of spikes, literally: one event, one neuron, one step after the other."""

from __future__ import annotations

import itertools
import math

import torch


def draws(count, generator, normal=False):
    """Return so many numbers, drawn at once as the package draws them."""
    draw = torch.randn if normal else torch.rand
    return draw(count, generator=generator, dtype=torch.float32).tolist()


def events_of(spikes):
    """Return the places of all events, in the order of the axes."""
    ranges = [range(size) for size in spikes.shape]
    return [place for place in itertools.product(*ranges) if spikes[place] == 1]


def of_events(places, like):
    spikes = torch.zeros_like(like)
    for place in places:
        spikes[place] = 1
    return spikes


def deletion(spikes, p, generator):
    events = events_of(spikes)
    u = draws(len(events), generator)
    return of_events([e for e, x in zip(events, u, strict=True) if x >= p], spikes)


def insertion(spikes, p, generator):
    u = draws(spikes.numel(), generator)
    places = itertools.product(*[range(size) for size in spikes.shape])
    added = [place for place, x in zip(places, u, strict=True) if x < p]
    return of_events([*events_of(spikes), *added], spikes)


def jitter(spikes, sigma, generator):
    events = events_of(spikes)
    moved = []
    for (t, *address), e in zip(events, draws(len(events), generator, normal=True), strict=True):
        later = t + round_half_even(sigma * e)
        if 0 <= later < len(spikes):
            moved.append((later, *address))
    return of_events(moved, spikes)


def round_half_even(x):
    return round(x)


def polarity_flip(spikes, p, generator):
    events = events_of(spikes)
    found = []
    for (t, b, c, y, x), u in zip(events, draws(len(events), generator), strict=True):
        found.append((t, b, 1 - c if u < p else c, y, x))
    return of_events(found, spikes)


def dropped_bins(spikes, p, generator):
    steps, images = spikes.shape[:2]
    u = draws(steps * images, generator)
    return of_events([e for e in events_of(spikes) if u[e[0] * images + e[1]] >= p], spikes)


def pixel_of(place, spikes):
    """Return the number of a place's pixel: polarities share one."""
    if spikes.dim() == 5:
        return place[3] * spikes.shape[4] + place[4]
    return place[2]


def pixels_in(spikes):
    return math.prod(spikes.shape[-2:]) if spikes.dim() == 5 else spikes.shape[2]


def dead_pixels(spikes, p, generator):
    u = draws(pixels_in(spikes), generator)
    return of_events([e for e in events_of(spikes) if u[pixel_of(e, spikes)] >= p], spikes)


def hot_pixels(spikes, p, generator, period=1):
    hot, phase, channel = (draws(pixels_in(spikes), generator) for _ in range(3))
    places = []
    for place in itertools.product(*[range(size) for size in spikes.shape]):
        pixel = pixel_of(place, spikes)
        channels = spikes.shape[2] if spikes.dim() == 5 else 1
        own = place[2] if spikes.dim() == 5 else 0
        fires = place[0] % period == int(phase[pixel] * period)
        if hot[pixel] < p and fires and own == int(channel[pixel] * channels):
            places.append(place)
    return of_events([*events_of(spikes), *places], spikes)


def neuron_of(place, spikes):
    """Return the number of a place's neuron."""
    number = 0
    for index, size in zip(place[2:], spikes.shape[2:], strict=True):
        number = number * size + index
    return number


def dead_neurons(spikes, p, generator):
    u = draws(math.prod(spikes.shape[2:]), generator)
    return of_events([e for e in events_of(spikes) if u[neuron_of(e, spikes)] >= p], spikes)


def stuck_neurons(spikes, p, generator):
    u = draws(math.prod(spikes.shape[2:]), generator)
    places = itertools.product(*[range(size) for size in spikes.shape])
    stuck = [place for place in places if u[neuron_of(place, spikes)] < p]
    return of_events([*events_of(spikes), *stuck], spikes)


def transmission_loss(spikes, p, generator):
    return deletion(spikes, p, generator)


def mismatch(count, sigma, generator):
    """Return the factor of each neuron's constant."""
    return [math.exp(sigma * e) for e in draws(count, generator, normal=True)]


def activity(trains, synapses):
    """Return spikes per image, firing rate by layer, and synaptic operations per image.

    Args:
        trains: Spikes ``[T, B, N]`` of each layer of neurons by name.
        synapses: Pairs of spikes ``[T, B, N]`` and how many synapses each of the N reaches.
    """
    spikes, rates, operations, images = 0, {}, 0, 0
    for name, train in trains.items():
        fired = len(events_of(train))
        spikes, images = spikes + fired, train.shape[1]
        rates[name] = fired / train.numel()
    for train, reached in synapses:
        for event in events_of(train):
            operations += reached[event[2]]
    return spikes / images, rates, operations / images
