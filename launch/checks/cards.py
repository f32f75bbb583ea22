"""Checks NVIDIA cards without JAX: does the driver run JAX's CUDA, and is their memory free?"""

import os
import shutil
from collections.abc import Iterator

from launch.checks import FAIL, NOTE, OK, Line
from rethinking import accelerator
from rethinking.accelerator import CUDA, Card

# JAX takes three quarters of a card's memory when it starts.
_FREE_PART = 0.75


def check() -> Iterator[Line]:
    """Lines on the driver and the memory of the cards."""
    cards, plugins = accelerator.cards(), accelerator.cuda_plugins()
    if cards:
        yield _driver(cards[0], plugins)
        yield _memory(cards)
    elif shutil.which("nvidia-smi"):
        reason = "nvidia-smi finds no card. Run nvidia-smi yourself: its message names the cause"
        yield Line(FAIL, "driver", f"{reason}, such as a driver that is not loaded.")
    elif plugins:
        text = "there is no NVIDIA driver, but JAX has its plugin for NVIDIA cards"
        yield Line(NOTE, "driver", text)
    library_path = os.environ.get("LD_LIBRARY_PATH")
    if plugins and library_path:
        reason = "It may replace the CUDA libraries of JAX. If JAX fails, unset it."
        yield Line(NOTE, "driver", f"LD_LIBRARY_PATH={library_path} is set. {reason}")


def _driver(card: Card, plugins: dict[int, str]) -> Line:
    """Whether the driver can run the plugin. Without a plugin, `devices` fails."""
    fitting = accelerator.fitting_cuda(card)
    if fitting is None or (plugins and max(plugins) > fitting):
        return Line(FAIL, "driver", f"{card.driver} on {card.name}. {accelerator.cause(card)}")
    installed = [f"for CUDA {cuda}, {version}" for cuda, version in plugins.items()]
    return Line(
        OK,
        "driver",
        f"{card.driver} runs CUDA {fitting} (extra {CUDA[fitting][0]}). JAX's plugin: "
        f"{' and '.join(installed) or 'none'}",
    )


def _memory(cards: list[Card]) -> Line:
    free = {}
    for name in _visible(cards):
        card = cards[int(name)]
        if card.free is not None and card.total:
            free[name] = card.free / card.total
    shown = [f"{part:.0%} of card {name}" for name, part in free.items()]
    text = f"free: {', '.join(shown) or 'not known'}"
    busy = [name for name, part in free.items() if part < _FREE_PART]
    if not busy:
        return Line(OK, "memory", text)
    others = ",".join(name for name in free if name not in busy)
    remedy = "Other programs use the rest: nvidia-smi names them. End them"
    remedy += f", or set CUDA_VISIBLE_DEVICES={others}." if others else "."
    return Line(FAIL, "memory", f"{text}. {remedy}")


def _visible(cards: list[Card]) -> list[str]:
    """The numbers of the cards that programs see."""
    numbers = [str(number) for number in range(len(cards))]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return numbers
    return [name for name in chosen.split(",") if name in numbers]
