"""The network under test, its images, and its cached results without variation."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikewvat.adapters import Account, Adapter, ResetState, account, adapter_for, claims
from spikewvat.adapters.effective import check_apart
from spikewvat.adapters.modes import evaluating
from spikewvat.errors import UnsupportedModelError
from spikewvat.holding import check_holdable
from spikewvat.robustness.draws import Draws
from spikewvat.robustness.images import Images
from spikewvat.robustness.observer import Observer
from spikewvat.robustness.run import Found, Run
from spikewvat.robustness.testset import ChipLoss, Scores, TestSet
from spikewvat.robustness.timing import Met, Time, meet
from spikewvat.weights import Weights, refresh


@dataclass
class Subject:
    """A network and its images, with what is cached between evaluations.

    Args:
        model: The network.
        images: The images that it classifies.
        scores: Function from outputs to class scores; None sums over time.
        given: Live weights that chips hold; None for all synaptic ones.
        own_adapter: Adapter; None for that of the network's framework.
        reset_state: Resets layers that no adapter knows.
        autocast: Lower precision of the forward passes.
        ignore: Parameters or modules that are not on the device.
        time: How the network handles time; None to infer it.
    """

    model: nn.Module
    images: Images
    scores: Scores | None
    given: Weights | None
    own_adapter: Adapter | None
    reset_state: ResetState | None
    autocast: torch.dtype | None
    ignore: Collection[str] = ()
    time: Time = None
    adapter: Adapter = field(init=False)
    # What the network without variation gave: counted or not, with a loss or without.
    _known: dict[tuple[bool, bool], Found] = field(init=False, default_factory=dict)
    _draws: Draws = field(init=False, default_factory=Draws)
    _met: Met | None = field(init=False, default=None)  # once it is known
    _seen: Snapshot | None = field(init=False, default=None)  # of the network that gave it

    def __post_init__(self) -> None:
        self.adapter = self.own_adapter or adapter_for(
            self.model, reset_state=self.reset_state, ignore=self.ignore
        )
        parameters = {id(parameter) for parameter in self.model.parameters()}
        if self.given is not None and not self.given:
            raise ValueError("weights is empty, expected live parameters by name. Leave it out.")
        given = self.given or {}
        self._own = {name for name, weight in given.items() if id(weight) in parameters}
        check_apart(self.live())

    def live(self) -> Weights:
        """Return the weights that chips hold, looked up again because parameters may be replaced.

        Raises:
            ValueError: If a given weight is no longer a parameter of the network, or one cannot
                hold other values.
            UnsupportedModelError: If the network has no synaptic weights.
        """
        live = self._looked_up()
        check_holdable(live)
        return live

    def _looked_up(self) -> Weights:
        if self.given is None:
            return self.adapter.synaptic_weights(self.model)
        parameters = {id(parameter) for parameter in self.model.parameters()}
        for name in self._own:
            if id(self.given[name]) not in parameters:
                raise ValueError(
                    f"weight {name!r} is no longer a parameter of the network: it has been "
                    "replaced. Make a new Evaluator with the present weights."
                )
        refresh(self.given)
        return dict(self.given)

    def account(self) -> Account:
        """Return the account of all parameters: on devices, or left out and why."""
        return account(self.model, self.adapter, self.given)

    @contextmanager
    def running(self, loss: ChipLoss | None, *, counting: bool = False) -> Iterator[Run]:
        """Put the network into evaluation mode within a block, then restore everything.

        Args:
            loss: Function from output and labels to the loss of a batch.
            counting: Count spikes and operations, if any layer of spiking neurons is known.
        """
        live = self.live()
        try:
            # Not inference mode: state that it leaves in neurons could not be reset in place.
            with evaluating(self.model), torch.no_grad(), ExitStack() as stack:
                self._forget_if_changed(live)
                device = next(iter(live.values())).device
                met = self._meets_time(device)
                if met.loop is not None:
                    stack.enter_context(met.loop.around(self.model))
                observer = None
                if counting:
                    with suppress(UnsupportedModelError):  # events of a network without neurons
                        observer = Observer(self.model, self.adapter, live, met.image_axis)
                test = TestSet(
                    model=self.model,
                    images=self.images,
                    device=device,
                    reset=self.adapter.reset_state,
                    scores=self.scores,
                    loss=loss,
                    autocast=self.autocast,
                    draws=self._draws,
                )
                key = observer is not None, loss is not None
                known = self._known.get(key) or self._known.get((key[0], True))
                run = Run(self.model, self.adapter, live, test, met.image_axis, observer, known)
                yield run
                if run.known is not None:
                    self._known[key] = run.known
        finally:
            self.adapter.reset_state(self.model)
            if self._known and self._seen is None:
                self._seen = Snapshot.of(self.model, live)

    def _meets_time(self, device: torch.device) -> Met:
        """Return how the network handles time, inferred once from the first batch."""
        if self._met is None:
            batch = self.images.first(device)
            if batch is None:
                return Met(None, None)  # the pass will say that there are no images
            with self._draws.forked([device]):
                summed = self.scores is None
                self._met = meet(
                    self.model,
                    self.adapter,
                    batch,
                    self.time,
                    summed=summed,
                    claims=claims(self.model, self.adapter, self.given),
                )
        return self._met

    def _forget_if_changed(self, live: Weights) -> None:
        if self._seen is None:
            return
        self.adapter.reset_state(self.model)
        if not self._seen.shows(self.model, live):
            self._seen = None
            self._known.clear()


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a network: its tensors, and modules and hooks by identity."""

    tensors: list[Tensor]
    parts: list[object]

    @classmethod
    def of(cls, model: nn.Module, live: Weights) -> Snapshot:
        """Take a snapshot of a network and its weights."""
        return cls([held.detach().clone() for held in _tensors(model, live)], _parts(model))

    def shows(self, model: nn.Module, live: Weights) -> bool:
        """Return whether the network is unchanged since the snapshot."""
        present = _tensors(model, live)
        return self.parts == _parts(model) and all(
            (was.dtype, was.device) == (now.dtype, now.device) and torch.equal(was, now)
            for was, now in zip(self.tensors, present, strict=True)
        )


def _tensors(model: nn.Module, live: Weights) -> list[Tensor]:
    return [*model.parameters(), *model.buffers(), *live.values()]


def _parts(model: nn.Module) -> list[object]:
    """Return the identities of the modules and of the hooks on them."""
    parts: list[object] = []
    for name, module in model.named_modules():
        parts += [name, type(module), len(list(module.parameters(recurse=False)))]
        parts += [len(list(module.buffers(recurse=False))), id(vars(module).get("forward"))]
        parts += [*module._forward_hooks, *module._forward_pre_hooks]
    return parts
