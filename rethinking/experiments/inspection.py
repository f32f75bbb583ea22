"""What --profile and --debug_nans look at while a network trains. Neither changes the run."""

import contextlib
import dataclasses
import itertools
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from etils import epath

if TYPE_CHECKING:  # these import JAX, and a command line is checked without it
    from rethinking.experiments.trainer import Leg, Trainer

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What to look at: see the flags of rethinking.main."""

    profile: int = 0  # the number of steps to profile; 0: none
    debug_nans: bool = False

    def legs(
        self, trainer: "Trainer", state: Any, step: int, folder: epath.Path
    ) -> Iterator["Leg"]:
        """The legs of `trainer.legs(state, step)`. What is found is logged, or is in `folder`."""
        legs = trainer.legs(state, step)
        if self.debug_nans:
            legs = _until_not_finite(trainer, legs, state, step)
        if self.profile:
            legs = _with_profile(trainer, legs, step, self.profile, folder)
        return legs


NOTHING = Inspection()


def _with_profile(
    trainer: "Trainer", legs: Iterator["Leg"], step: int, num_steps: int, folder: epath.Path
) -> Iterator["Leg"]:
    """Profiles some steps after the first leg, by which the programs are compiled."""
    from rethinking.experiments import profile

    with contextlib.closing(legs):
        for number, leg in enumerate(legs):
            if number == 0:
                step += trainer.leg_steps(step)
                profile.record(trainer, leg.state, step, num_steps, folder)
            yield leg


def _until_not_finite(
    trainer: "Trainer", legs: Iterator["Leg"], state: Any, step: int
) -> Iterator["Leg"]:
    """Explains the first leg whose loss or state is not finite. It keeps a copy of each state."""
    import jax

    from rethinking.experiments.trainer import copied
    from rethinking.training.not_finite import all_finite

    is_finite = jax.jit(all_finite)
    before = copied(state)
    with contextlib.closing(legs):
        for leg in legs:
            if before is not None and not is_finite((leg.state, leg.loss)):
                _LOG.warning("%s", explain(trainer, before, step))
                before = None
            if before is not None:
                before = copied(leg.state)
            step += trainer.leg_steps(step)
            yield leg


def explain(trainer: "Trainer", state: Any, step: int) -> str:
    """Which step after `step` is the first that is not finite, its loss, and the layer it is in.

    `state` is that before the leg. The leg is repeated step by step, and the last step operation by
    operation.
    """
    from rethinking.training import not_finite

    devices, split = trainer.network.devices, trainer.split_argnums
    run = devices.compile(trainer.single_step, split_argnums=split)
    replayed = itertools.islice(trainer.replay(step), trainer.leg_steps(step))
    for number, arguments in enumerate(replayed, step + 1):
        after, loss = run(state, *arguments)
        if not_finite.all_finite((after, loss)):
            state = after
            continue
        found = not_finite.find(trainer.single_step, devices, split, state, *arguments)
        value = float(loss)
        what = f"the loss is {value:.6g}"
        if math.isfinite(value):
            what += ", but the state after it is not finite"
        return (
            f"Step {number} is the first that is not finite: {what}. It comes from: "
            f"{found or 'an argument of the step that is not finite'}."
        )
    return (
        f"The loss or the state after step {step} is not finite, but it stays finite if the steps "
        f"are repeated one by one. Values near the largest number of their type are the likely "
        "cause: try a smaller learning rate."
    )
