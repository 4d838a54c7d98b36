"""A run as data: recipes in TOML, and the only tables from names to classes.

A recipe names a data set, a network, a training method and an evaluation. ``extends`` takes over
another recipe, ``[preset.paper]`` changes some keys for a run at the paper's scale, and
``key=value`` on the command line changes single ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from spikewvat.errors import RecipeError
from spikewvat.validation import BaseModel, ConfigDict, Field, model_validator

DATA = {
    "embedded": "spikewvat.data.nmnist:NMNIST",
    "nmnist": "spikewvat.data.nmnist:NMNIST",
    "mnist": "spikewvat.data.images:MNIST",
    "cifar10": "spikewvat.data.cifar:CIFAR10",
    "cifar100": "spikewvat.data.cifar:CIFAR100",
    "imagenet": "spikewvat.data.imagenet:ImageNet",
}
GENERATED = {
    "embedded": "spikewvat.data.embedded:embedded_root",
}
"""Data sets that need no folder: what makes theirs."""
ENCODINGS = {
    "rate": "spikewvat.data.encodings:Rate",
    "latency": "spikewvat.data.encodings:Latency",
    "direct": "spikewvat.data.encodings:Direct",
}
MODELS = {
    "snntorch-cnn": "spikewvat.lab.models.snntorch:SpikingCNN",
    "spikingjelly-cnn": "spikewvat.lab.models.spikingjelly:SpikingCNN",
    "spikingjelly-sew": "spikewvat.lab.models.sew:SEWResNet",
    "dense": "spikewvat.lab.models.dense:FullyConnected",
    "lenet": "spikewvat.lab.models.lenet:LeNet",
    "vgg5": "spikewvat.lab.models.vgg:VGG5",
    "vgg16": "spikewvat.lab.models.vgg:VGG16",
    "vgg16-bias": "spikewvat.lab.models.vgg:VGG16Bias",
    "alexnet": "spikewvat.lab.models.alexnet:AlexNet",
    "resnet18": "spikewvat.lab.models.resnet:ResNet18",
    "resnet20": "spikewvat.lab.models.resnet:ResNet20",
    "resnet34": "spikewvat.lab.models.resnet:ResNet34",
    "preresnet20": "spikewvat.lab.models.preresnet:PreResNet20",
    "preresnet110": "spikewvat.lab.models.preresnet:PreResNet110",
    "wrn28-10": "spikewvat.lab.models.wide_resnet:WideResNet",
    "torchvision-resnet34": "spikewvat.lab.models.vision:resnet34",
    "mobilenetv2": "spikewvat.lab.models.vision:mobilenet_v2",
    "efficientnet-b0": "spikewvat.lab.models.vision:efficientnet_b0",
    "lif-fc": "spikewvat.lab.models.lif:FullyConnected",
    "lif-cnn": "spikewvat.lab.models.lif:CNN",
    "slayer-fc": "spikewvat.lab.models.slayer:FullyConnected",
    "slayer-cnn": "spikewvat.lab.models.slayer:CNN",
    "tsslbp-cnn1": "spikewvat.lab.models.tsslbp:SpikingCNN1",
    "tsslbp-cnn2": "spikewvat.lab.models.tsslbp:SpikingCNN2",
    "tsslbp-nmnist": "spikewvat.lab.models.tsslbp:NMNISTCNN",
}
PUBLISHED = {
    "torchvision-resnet34": "spikewvat.lab.models.vision:resnet34_weights",
    "mobilenetv2": "spikewvat.lab.models.vision:mobilenet_v2_weights",
    "efficientnet-b0": "spikewvat.lab.models.vision:efficientnet_b0_weights",
}
"""Networks whose trained weights a library downloads: what fetches them by name."""
CORRUPTIONS = {
    "deletion": "spikewvat.robustness.corruptions:Deletion",
    "insertion": "spikewvat.robustness.corruptions:Insertion",
    "jitter": "spikewvat.robustness.corruptions:Jitter",
    "polarity-flip": "spikewvat.robustness.corruptions:PolarityFlip",
    "dropped-bins": "spikewvat.robustness.corruptions:DroppedBins",
    "dead-pixels": "spikewvat.robustness.corruptions:DeadPixels",
    "hot-pixels": "spikewvat.robustness.corruptions:HotPixels",
    "dead-neurons": "spikewvat.robustness.corruptions:DeadNeurons",
    "stuck-neurons": "spikewvat.robustness.corruptions:StuckNeurons",
    "threshold-mismatch": "spikewvat.robustness.corruptions:ThresholdMismatch",
    "leak-mismatch": "spikewvat.robustness.corruptions:LeakMismatch",
    "transmission-loss": "spikewvat.robustness.corruptions:TransmissionLoss",
    "read-noise": "spikewvat.robustness.corruptions:ReadNoise",
}
DEVICES = {
    "ideal": "spikewvat.devices:Ideal",
    "gaussian": "spikewvat.devices:Gaussian",
    "gaussian-table": "spikewvat.devices:GaussianTable",
    "uniform": "spikewvat.devices:Uniform",
    "weibull": "spikewvat.devices:Weibull",
    "skew-normal": "spikewvat.devices:SkewNormal",
    "mixture": "spikewvat.devices:MixtureNoise",
    "lognormal": "spikewvat.devices:Lognormal",
    "right-censored": "spikewvat.devices:RightCensored",
    "quantized": "spikewvat.devices:Quantized",
    "binary-cells": "spikewvat.devices:BinaryCells",
    "stuck-at": "spikewvat.devices:StuckAt",
    "drift": "spikewvat.devices:Drift",
    "differential-pair": "spikewvat.devices:DifferentialPair",
    "measured": "spikewvat.devices.measured:measured",
}
RANGES = {
    "six-sigma": "spikewvat.devices.ranges:SixSigma",
    "half-width": "spikewvat.devices.ranges:HalfWidth",
    "absmax": "spikewvat.devices.ranges:AbsMax",
    "minmax": "spikewvat.devices.ranges:MinMax",
    "fixed": "spikewvat.devices.ranges:Fixed",
}
METHODS = {
    "plain": "spikewvat.training:Plain",
    "wvat": "spikewvat.perturbations:variation",
    "hsv": "spikewvat.perturbations:HSV",
    "gav": "spikewvat.perturbations:GAV",
    "sam": "spikewvat.perturbations:SAM",
    "asam": "spikewvat.perturbations:ASAM",
    "awp": "spikewvat.perturbations:AWP",
    "variable-noise": "spikewvat.perturbations:VariableNoise",
    "noise-injection": "spikewvat.training.methods:NoiseInjection",
    "random-perturbation": "spikewvat.training.methods:RandomPerturbation",
    "parameter-adversary": "spikewvat.training.methods:ParameterAdversary",
    "vortex": "spikewvat.training.methods:Vortex",
    "statistical": "spikewvat.training.methods:Statistical",
    "ptq": "spikewvat.training:Plain",
    "qat": "spikewvat.training.methods:QAT",
}
SOURCES = {
    "gradient": "spikewvat.perturbations:Gradient",
    "momentum": "spikewvat.perturbations:Momentum",
    "past": "spikewvat.perturbations:Past",
}
"""Where the worst direction comes from."""
OPTIMIZERS = {
    "adam": "torch.optim:Adam",
    "adamw": "torch.optim:AdamW",
    "sgd": "torch.optim:SGD",
    "rmsprop": "torch.optim:RMSprop",
}
CODINGS = {
    "direct": "spikewvat.conversion:Direct",
    "poisson": "spikewvat.conversion:Poisson",
}
SURROGATES = {
    "triangle": "spikewvat.conversion:Triangle",
    "spike-time": "spikewvat.conversion:SpikeTime",
}
LOSSES = {
    "rate-cross-entropy": "spikewvat.spiking.losses:rate_cross_entropy",
    "mse-count": "spikewvat.spiking.losses:mse_count",
    "slayer-count": "spikewvat.spiking.slayer:count_loss",
    "tsslbp-kernel": "spikewvat.spiking.tsslbp:kernel_loss",
    "tsslbp-count": "spikewvat.spiking.tsslbp:count_loss",
}

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Spec = str | dict[str, Any] | list[dict[str, Any]]
"""A device: ``"quantized:bits=4>>gaussian"``, a table with a name, a list of such, or a file."""


class Table(BaseModel):
    """Named keys, none but those."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """Something with a name; its other keys are the parameters of what the name stands for.

    A bare name stands for a table without parameters.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def parameters(self) -> dict[str, Any]:
        """All keys but the name."""
        return dict(self.model_extra or {})


def component(value: Any, key: str) -> Component:
    """Return what a name, or a table with a name, stands for.

    Raises:
        RecipeError: If it is neither.
    """
    if not isinstance(value, str) and not (
        isinstance(value, Mapping) and isinstance(value.get("name"), str)
    ):
        raise RecipeError(f"{key} = {value!r}: expected a name, or a table with a name.")
    return Component.model_validate(value)


class Training(Table):
    """How to train."""

    optimizer: str = "adam"
    lr: PositiveFloat = 1e-3
    weight_decay: Size = 0.0
    momentum: Size | None = None
    schedule: Literal["constant", "decay", "step", "exponential"] = "constant"
    """``"decay"`` is that of Izmailov et al., ``"step"`` divides by 10 at 60, 80 and 90 %."""
    final_lr: PositiveFloat | None = None
    """Last learning rate of ``schedule = "decay"``; one hundredth of the first by default."""
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the learning rate from epoch to epoch of ``schedule = "exponential"``."""
    start: str | None = None
    """Weights to begin with: a file, or the name of some that the network's library downloads."""
    epochs: Positive = 20
    batch_size: Positive = 64
    loss: Component = Component(name="rate-cross-entropy")
    clip_norm: PositiveFloat | None = None
    clamp: PositiveFloat | None = None
    """Keep synaptic weights between minus and plus so much after every step."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Shift each training sample by up to so many pixels, anew in every epoch."""
    flip: bool = False
    """Mirror half of the training samples left to right, anew in every epoch."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training data that is held out, watched for the best epoch and early stop.

    Where it is 0 the test data is watched, which flatters ``best.safetensors`` and early stops;
    ``model.safetensors`` of a run without early stop is unaffected.
    """
    patience: Positive | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: Positive = 1
    strategy: str = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    tensorboard: bool = False


class Averaging(Table):
    """Stochastic weight averaging."""

    enabled: bool = False
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the epochs that pass before averaging starts."""
    lr: PositiveFloat | None = None
    """Learning rate while averaging, reached by the schedule of Izmailov et al.; else unchanged."""


class Evaluation(Table):
    """Which chips to simulate after training."""

    split: Literal["train", "validation", "test"] = "test"
    """``"validation"`` is what ``training.validation`` holds out."""
    device: Spec = "gaussian"
    """``"ideal"`` by default where something happens to spikes."""
    corruption: Spec | None = None
    """What happens to spikes: ``"deletion"``, ``"jitter>>dead-neurons:severity=0.05"``."""
    sigmas: tuple[Size, ...] | None = (0.0, 0.05, 0.10)
    """Sizes of the variation; of a corruption the severities, None for 0 and its five levels."""
    chips: Positive = 25
    target: Annotated[float, Field(gt=0, le=1)] = 0.9
    batch_size: Positive = 256
    images: Positive | None = None
    """Evaluate on so many samples, evenly spaced over the split; on all by default."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the chips: the same one for all recipes, so that methods meet the same chips."""
    activation_bits: Annotated[int, Field(ge=2, le=16)] | None = None
    """Quantise what goes into each layer of synapses, calibrated on training data."""

    @model_validator(mode="before")
    @classmethod
    def _corrupted(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("corruption") is None:
            return value
        return {"device": "ideal", "sigmas": None, **value}


class Finetuning(Table):
    """How to train a converted network by surrogate gradients, with Adam."""

    epochs: Annotated[int, Field(ge=0)] = 0
    """0 leaves the network as it was converted."""
    images: Positive | None = None
    """Training images of an epoch, others in each; all by default."""
    batch_size: Positive = 64
    lr: PositiveFloat = 1e-4
    weight_decay: Size = 5e-4
    method: Component = Component(name="plain")
    thresholds: bool = False
    """Learn thresholds too."""
    leak: bool = False
    """Learn leaks too."""


class Conversion(Table):
    """How to turn the trained network into a spiking one."""

    time_steps: Positive = 16
    calibration: Positive = 512
    """How many training images thresholds are chosen on."""
    coding: Component = Component(name="direct")
    neurons: dict[str, Any] = Field(default_factory=dict)
    """Arguments of ``Dynamics``, ``surrogate`` by name, and ``leak``, ``unit_spikes``."""
    balancing: dict[str, Any] = Field(default_factory=dict)
    """Arguments of ``Balancing``, and ``variation``, a device: thresholds for many chips."""
    finetune: Finetuning = Finetuning()
    sweep: tuple[Positive, ...] = ()
    """Also test after so many steps; by default after fractions of ``time_steps``."""
    batch_size: Positive = 100
    """Images that are calibrated on and tested at once."""
    images: Positive | None = None
    """Test chips on so many samples, evenly spaced, but steps on all; by default both on all."""


class Landscape(Table):
    """How to look at the loss around the weights."""

    device: Spec = "gaussian"
    sigma: Size = 0.15
    """Size of the variation at the ends of the lines."""
    directions: Positive = 10
    points: Annotated[int, Field(ge=2)] = 7
    """Places on each line."""
    chips: Positive = 25
    """Chips for the sharpness."""
    ascent_points: Annotated[int, Field(ge=0)] = 5
    surface: Annotated[int, Field(ge=0)] = 0
    """Places along either side of a plane; 0 evaluates none."""
    histograms: bool = False
    images: Positive | None = None


VARIED = ("evaluation", "conversion", "landscape")
"""Tables about what comes after training; ``[<table>.variant.<name>]`` changes keys of one."""


class Recipe(Table):
    """Everything that a run depends on, beside the data on disk."""

    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    scale: str = "quick"
    """The preset that was chosen."""
    data: Component
    model: Component
    training: Training = Training()
    method: Component = Component(name="plain")
    averaging: Averaging = Averaging()
    evaluation: Evaluation = Evaluation()
    conversion: Conversion | None = None
    landscape: Landscape | None = None

    def content(self) -> dict[str, Any]:
        """Return plain nested values, as TOML and JSON hold them."""
        return self.model_dump(exclude_none=True)

    def training_content(self) -> dict[str, Any]:
        """Return what the trained weights depend on: neither names nor what comes afterwards."""
        content = self.content()
        for key in ("name", "description", "scale", *VARIED):
            content.pop(key, None)
        if self.training.patience is not None and not self.training.validation:
            content["watched_images"] = self.evaluation.images  # they decide when to stop
        return content
