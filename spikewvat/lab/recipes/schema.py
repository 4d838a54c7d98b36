"""The schema of recipes, and the tables from names to classes.

A recipe names a data set, a network, a training method and an evaluation. ``extends`` builds on
another recipe, ``[preset.paper]`` changes some keys for a run at the paper's scale, and
``key=value`` on the command line changes single ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from spikewvat.errors import RecipeError
from spikewvat.formatting import seconds_of
from spikewvat.validation import BaseModel, ConfigDict, Field, field_validator, model_validator

DATA = {
    "embedded": "spikewvat.data.nmnist:NMNIST",
    "nmnist": "spikewvat.data.nmnist:NMNIST",
    "nmnist-folds": "spikewvat.data.folds:NMNISTFolds",
    "mnist": "spikewvat.data.images:MNIST",
    "cifar10": "spikewvat.data.cifar:CIFAR10",
    "cifar100": "spikewvat.data.cifar:CIFAR100",
    "imagenet": "spikewvat.data.imagenet:ImageNet",
}
GENERATED = {
    "embedded": "spikewvat.data.embedded:embedded_root",
}
"""Data sets that need no folder, with the function that generates them."""
ENCODINGS = {
    "rate": "spikewvat.data.encodings:Rate",
    "latency": "spikewvat.data.encodings:Latency",
    "direct": "spikewvat.data.encodings:Direct",
}
CORRECTIONS = {
    "offset-spikes": "spikewvat.conversion:OffsetSpikes",
    "silent-residuals": "spikewvat.conversion:SilentResiduals",
}
MODELS = {
    "snntorch-cnn": "spikewvat.lab.models.snntorch:SpikingCNN",
    "snntorch-recurrent": "spikewvat.lab.models.snntorch:Recurrent",
    "spikingjelly-cnn": "spikewvat.lab.models.spikingjelly:SpikingCNN",
    "spikingjelly-sew": "spikewvat.lab.models.sew:SEWResNet",
    "dense": "spikewvat.lab.models.dense:FullyConnected",
    "lenet": "spikewvat.lab.models.lenet:LeNet",
    "vgg5": "spikewvat.lab.models.vgg:VGG5",
    "vgg6": "spikewvat.lab.models.vgg:VGG6",
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
"""Networks with downloadable trained weights, with the function that fetches them by name."""
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
    "uniform": "spikewvat.devices:Uniform",
    "weibull": "spikewvat.devices:Weibull",
    "skew-normal": "spikewvat.devices:SkewNormal",
    "mixture": "spikewvat.devices:MixtureNoise",
    "lognormal": "spikewvat.devices:Lognormal",
    "right-censored": "spikewvat.devices:RightCensored",
    "quantized": "spikewvat.devices:Quantized",
    "binary-cells": "spikewvat.devices:BinaryCells",
    "stuck-at": "spikewvat.devices:StuckAt",
    "fault-map": "spikewvat.devices:fault_map",
    "read-noise": "spikewvat.devices:ReadNoise",
    "chip": "spikewvat.robustness.chip:Chip",
    "drift": "spikewvat.devices:Drift",
    "random-age": "spikewvat.devices:AtRandomAge",
    "compensated": "spikewvat.devices:Compensated",
    "differential-pair": "spikewvat.devices:DifferentialPair",
    "single-cell": "spikewvat.devices:SingleCell",
    "pcm": "spikewvat.devices:pcm",
    "hermes": "spikewvat.devices:hermes",
    "wan-reram": "spikewvat.devices:wan_reram",
    "cmo-reram": "spikewvat.devices:cmo_reram",
    "milo-reram": "spikewvat.devices:milo_reram",
    "sonos": "spikewvat.devices:sonos",
    "measured": "spikewvat.devices.measured:measured",
}
MEASURES = {
    "scale": "spikewvat.robustness.calibration:Scale",
    "bias-trim": "spikewvat.robustness.calibration:BiasTrim",
    "gain-trim": "spikewvat.robustness.calibration:GainTrim",
    "threshold-trim": "spikewvat.robustness.calibration:ThresholdTrim",
    "conversion-trim": "spikewvat.robustness.calibration:ConversionTrim",
    "batch-norm": "spikewvat.robustness.calibration:BatchNorm",
    "distillation": "spikewvat.robustness.calibration:Distillation",
    "learning": "spikewvat.robustness.calibration:Learning",
}
"""What can be done to a chip after programming."""
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
    "samson": "spikewvat.perturbations:SAMSON",
    "awp": "spikewvat.perturbations:AWP",
    "variable-noise": "spikewvat.perturbations:VariableNoise",
    "noise-injection": "spikewvat.training.methods:NoiseInjection",
    "random-perturbation": "spikewvat.training.methods:RandomPerturbation",
    "parameter-adversary": "spikewvat.training.methods:ParameterAdversary",
    "negative-feedback": "spikewvat.training.methods:NegativeFeedback",
    "distillation": "spikewvat.training.methods:Distillation",
    "stochastic-thresholds": "spikewvat.training.methods:StochasticThresholds",
    "straight-through": "spikewvat.training.methods:StraightThrough",
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
"""Sources of the worst perturbation."""
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

PRECISE: Literal["32-true"] = "32-true"
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Spec = str | dict[str, Any] | list[dict[str, Any]]
"""A device: ``"quantized:bits=4>>gaussian"``, a table with a name, a list of these, or a file."""


class Table(BaseModel):
    """A table that rejects unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """A named component; its other keys are the parameters of the named object.

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
    """Settings of the training."""

    optimizer: str = "adam"
    lr: PositiveFloat = 1e-3
    weight_decay: Size = 0.0
    momentum: Size | None = None
    schedule: Literal["constant", "decay", "step", "cosine", "exponential"] = "constant"
    """``"decay"`` is that of Izmailov et al., ``"step"`` divides by 10 at 60, 80 and 90 %,
    ``"cosine"`` falls to almost 0 after a first epoch at a tenth."""
    final_lr: PositiveFloat | None = None
    """Final learning rate of ``schedule = "decay"``; a hundredth of the initial one by default."""
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the learning rate per epoch for ``schedule = "exponential"``."""
    start: str | None = None
    """Initial weights: a file, or the name of weights that the network's library downloads."""
    epochs: Positive = 20
    batch_size: Positive = 64
    loss: Component = Component(name="rate-cross-entropy")
    clip_norm: PositiveFloat | None = None
    clamp: PositiveFloat | None = None
    """Clip synaptic weights to plus or minus this value after every step."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Shift each training sample by up to this many pixels, redrawn in every epoch."""
    flip: bool = False
    """Mirror half of the training samples left to right, redrawn in every epoch."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training data held out to select the best epoch and stop early.

    If it is 0, the test data is watched, which biases ``best.safetensors`` and early stopping
    optimistically; ``model.safetensors`` of a run without early stopping is unaffected.
    """
    patience: Positive | None = None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = False
    """Keep the weights of convolutions in torch's channels-last layout: the same network, and
    faster convolutions in ``bf16-mixed``. The network is evaluated in that layout too."""
    fused: bool = False
    """Step all weights in one kernel of the optimizer: ``sgd``, ``adam`` and ``adamw`` have one."""
    compile: bool = False
    """Train through ``torch.compile``, once for each size of a batch."""
    accelerator: str = "auto"
    devices: Positive = 1
    strategy: str = "auto"
    workers: Annotated[int, Field(ge=0)] = 0
    tensorboard: bool = False
    crossbar: str | dict[str, Any] | None = None
    """Train in a crossbar: ``"rows=128,adc_bits=8"``."""


class Averaging(Table):
    """Stochastic weight averaging."""

    enabled: bool = False
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the epochs before averaging starts."""
    lr: PositiveFloat | None = None
    """Learning rate during averaging, after Izmailov et al.'s schedule; unchanged by default."""


class Evaluation(Table):
    """The chips to simulate after training."""

    split: Literal["train", "validation", "test"] = "test"
    """``"validation"`` is the data held out by ``training.validation``."""
    device: Spec = "gaussian"
    """``"ideal"`` (no variation) by default if there is a corruption."""
    crossbar: str | dict[str, Any] | None = None
    """What stands around the devices: ``"rows=128,adc_bits=8,adc_range=calibrated"``."""
    corruption: Spec | None = None
    """Corruption of spikes: ``"deletion"``, ``"jitter>>dead-neurons:severity=0.05"``."""
    sigmas: tuple[Size, ...] | None = (0.0, 0.05, 0.10)
    """Sizes of the variation, or severities of a corruption; None is 0 and its five levels."""
    ages: tuple[Size, ...] | None = None
    """Times since programming at which the chips are tested instead, ``"1d"`` or in seconds."""
    calibrate: Spec | None = None
    """What is done to each chip after programming: ``"scale>>bias-trim:samples=64"``."""
    calibration: Literal["train", "validation"] = "train"
    """The samples that chips are calibrated with: of the training, or held out of it."""
    draw: Annotated[int, Field(ge=0)] = 0
    """Which of them come first: another number is another drawing."""
    before: bool = True
    """Whether chips are tested before they are calibrated, too."""
    verify: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the weights that are verified, those with the largest Fisher x error^2."""
    chips: Positive = 25
    target: Annotated[float, Field(gt=0, le=1)] = 0.9
    batch_size: Positive = 256
    images: Positive | None = None
    """Number of samples to evaluate on, evenly spaced over the split; all by default."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the chips: the same for all recipes, so that methods are tested on the same chips."""
    precision: Literal["32-true", "bf16-mixed"] = PRECISE
    """A converted network is always tested in ``32-true``: its potentials sum small currents."""
    activation_bits: Annotated[int, Field(ge=2, le=16)] | None = None
    """Quantise the inputs of each layer of synapses, calibrated on training data."""

    @field_validator("ages", mode="before")
    @classmethod
    def _in_seconds(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return tuple(seconds_of(age) if isinstance(age, str) else age for age in value)

    @model_validator(mode="before")
    @classmethod
    def _corrupted(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("corruption") is None:
            return value
        return {"device": "ideal", "sigmas": None, **value}


class Finetuning(Table):
    """Fine-tuning of a converted network with surrogate gradients and Adam."""

    epochs: Annotated[int, Field(ge=0)] = 0
    """Number of epochs; 0 keeps the converted network as it is."""
    images: Positive | None = None
    """Number of training images per epoch, redrawn in each; all by default."""
    batch_size: Positive = 64
    lr: PositiveFloat = 1e-4
    weight_decay: Size = 5e-4
    method: Component = Component(name="plain")
    thresholds: bool = False
    """Also train the thresholds."""
    leak: bool = False
    """Learn leaks too."""


class Conversion(Table):
    """Conversion of the trained network to a spiking one."""

    time_steps: Positive | None = None
    """By default the levels of the network's QCFS layers, or 16 where there are none."""
    calibration: Positive = 512
    """Number of training images for choosing thresholds."""
    coding: Component = Component(name="direct")
    correction: Component | None = None
    """What corrects each image's spikes."""
    neurons: dict[str, Any] = Field(default_factory=dict)
    """Arguments of ``Dynamics``, ``surrogate`` by name; ``leak``, ``unit_spikes``, ``analog``."""
    balancing: dict[str, Any] = Field(default_factory=dict)
    """Arguments of ``Balancing``, and ``variation``, a device: thresholds for many chips."""
    finetune: Finetuning = Finetuning()
    sweep: tuple[Positive, ...] = ()
    """Also test after these numbers of steps; by default after fractions of T."""
    batch_size: Positive = 100
    """Batch size for calibration and testing."""
    images: Positive | None = None
    """Number of evenly spaced samples for testing chips; all by default, as always for steps."""


class Landscape(Table):
    """Evaluation of the loss around the weights."""

    device: Spec = "gaussian"
    sigma: Size = 0.15
    """Size of the variation at the ends of the lines."""
    directions: Positive = 10
    points: Annotated[int, Field(ge=2)] = 7
    """Places on each line."""
    chips: Positive = 25
    """Number of chips for the sharpness."""
    ascent_points: Annotated[int, Field(ge=0)] = 5
    surface: Annotated[int, Field(ge=0)] = 0
    """Positions along each side of a plane; 0 evaluates none."""
    histograms: bool = False
    images: Positive | None = None


VARIED = ("evaluation", "conversion", "landscape")
"""Tables for the steps after training; ``[<table>.variant.<name>]`` changes keys of one."""


class Recipe(Table):
    """Everything that a run depends on, except the data on disk."""

    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    scale: str = "quick"
    """The selected preset."""
    data: Component
    model: Component
    training: Training = Training()
    method: Component = Component(name="plain")
    averaging: Averaging = Averaging()
    evaluation: Evaluation = Evaluation()
    conversion: Conversion | None = None
    landscape: Landscape | None = None

    def content(self) -> dict[str, Any]:
        """Return plain nested values, for TOML and JSON."""
        return self.model_dump(exclude_none=True)

    def training_content(self) -> dict[str, Any]:
        """Return the keys that the trained weights depend on, without names and later steps."""
        content = self.content()
        for key in ("name", "description", "scale", *VARIED):
            content.pop(key, None)
        if self.training.patience is not None and not self.training.validation:
            content["watched_images"] = self.evaluation.images  # they decide when to stop
        return content
