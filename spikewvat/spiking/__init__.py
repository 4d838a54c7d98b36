"""Spiking building blocks as pure functions of tensors, time first."""
