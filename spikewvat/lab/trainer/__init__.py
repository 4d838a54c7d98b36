"""The reference training loop: epochs, checkpoints, progress, resuming without a trace."""

from spikewvat.lab.trainer.loop import Loss, derived_seed
from spikewvat.lab.trainer.trainer import BEST, CHECKPOINT, FINAL, Trainer, TrainingResult

__all__ = [
    "BEST",
    "CHECKPOINT",
    "FINAL",
    "Loss",
    "Trainer",
    "TrainingResult",
    "derived_seed",
]
