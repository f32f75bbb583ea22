"""Networks of any library behind one interface.

    interface.py   `Model`, which training uses; `Functions`, which a user's object may be
    linen.py       modules of flax.linen
    nnx.py         modules of flax.nnx
    functions.py   objects with `init` and `apply`: networks of other libraries

Nothing outside of this package and `rethinking.models` knows what a network is written in.
"""

import functools
from typing import Any

from flax import linen as nn

from rethinking.models.adapters.functions import PureFunctions
from rethinking.models.adapters.interface import Functions, Model
from rethinking.models.adapters.linen import Linen
from rethinking.models.adapters.nnx import Nnx

__all__ = ["Functions", "Model", "adapt"]


def adapt(network: nn.Module | functools.partial | Functions | Any) -> Model:
    """The network that `rethinking.models.create` has made, behind the interface of training."""
    if isinstance(network, nn.Module):
        return Linen(network)
    if isinstance(network, functools.partial):  # a class of flax.nnx, constructed for each seed
        return Nnx(network)
    return PureFunctions(network)
