"""Weight-variation-aware training and chip simulation for spiking neural networks."""
