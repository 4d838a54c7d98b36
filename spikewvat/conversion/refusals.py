"""What cannot be converted, and what to do instead."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

CAN = (
    "Conv, ConvTranspose, Linear, Avg/Adaptive/MaxPool, ReLU, ReLU6, Hardtanh, QCFS, Dropout, "
    "BatchNorm, reshaping, upsampling, additions, concatenation and constants"
)
_ATTENTION = (
    "Attention multiplies activations with each other, which adding spikes cannot do. Train a "
    "spiking network directly instead, such as SpikingJelly's Spikformer; WVAT and Evaluator take "
    "it as it is."
)
_SMOOTH = "Train the model with nn.ReLU instead, or with QCFS for few time steps."
_SAMPLE_NORM = (
    "It divides each sample by its own spread, which is known only after all spikes. Train with "
    "batch norm, whose statistics are constants."
)
_PRODUCT = (
    "The product of two activations has no spiking counterpart: synapses only add. Leave gates "
    "such as squeeze-and-excitation out."
)
_SOFTMAX = "Leave it out: classification compares scores, and cross-entropy includes it."
_MODULES: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.MultiheadAttention, nn.TransformerEncoderLayer), _ATTENTION),
    ((nn.Softmax, nn.LogSoftmax, nn.Softmax2d), _SOFTMAX),
    ((nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, _InstanceNorm, nn.LocalResponseNorm), _SAMPLE_NORM),
)
_CALLS = {
    **dict.fromkeys(("scaled_dot_product_attention", "matmul", "bmm", "einsum"), _ATTENTION),
    **dict.fromkeys(("softmax", "log_softmax"), _SOFTMAX),
    **dict.fromkeys(("group_norm", "layer_norm", "rms_norm", "instance_norm"), _SAMPLE_NORM),
    **dict.fromkeys(("mul", "imul", "mul_", "multiply"), _PRODUCT),
    **dict.fromkeys(
        ("gelu", "silu", "elu", "selu", "celu", "mish", "softplus", "tanh", "sigmoid",
         "leaky_relu", "leaky_relu_", "prelu", "hardswish", "hardsigmoid", "logsigmoid"),
        _SMOOTH,
    ),
}  # fmt: skip


def advice(what: nn.Module | str) -> str:
    """Return what to do about a layer, or a function or method of this name."""
    if isinstance(what, str):
        return _CALLS.get(what, f"Only {CAN} can.")
    for kinds, text in _MODULES:
        if isinstance(what, kinds):
            return text
    is_activation = not list(what.children()) and "activation" in type(what).__module__
    return _SMOOTH if is_activation else f"Only {CAN} can."
