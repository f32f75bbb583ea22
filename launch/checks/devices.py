"""Starts a process that tries the devices, and reports its findings. It needs no JAX itself."""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launch.checks import FAIL, OK, Line
from rethinking.accelerator import ASK_DOCTOR

# Seconds after which a trial counts as hanging. Compiling for many devices takes a while.
_TIMEOUT = 600.0
# What to do about a part that fails with an error of JAX's own.
_REMEDIES = {
    "jax": "Install JAX again: pip install --force-reinstall jax jaxlib",
    "devices": "Until this is fixed, JAX_PLATFORMS=cpu lets you compute on the CPU.",
}


def check(places: Sequence[str], environment: Mapping[str, str]) -> tuple[list[Line], int]:
    """The lines on the accelerators and then on the CPU, and the number of this process.

    `places` are the flags by which this process finds others. With them there is one trial.
    """
    findings, lines = _try(places, environment)
    platforms = {finding.get("platform") for finding in findings}
    process = next((finding["process"] for finding in findings if "process" in finding), 0)
    is_imported = any(
        finding.get("name") == "jax" and finding["mark"] == OK for finding in findings
    )
    if is_imported and "cpu" not in platforms and not places:
        on_cpu = {**environment, "JAX_PLATFORMS": "cpu"}
        lines += [line for line in _try([], on_cpu)[1] if line.name != "jax"]
    return lines, process


def _try(
    places: Sequence[str], environment: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[Line]]:
    """The findings of a trial, and the lines that they become."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = pathlib.Path(folder, "findings"), pathlib.Path(folder, "log")
        command = [sys.executable, "-m", "launch.checks.trial", f"--findings={file}", *places]
        with open(log, "wb") as output:
            process = subprocess.Popen(command, env=dict(environment), stdout=output, stderr=output)
            how = _wait(process)
        said = log.read_text(errors="replace")
        findings = []
        if file.exists():
            findings = [json.loads(line) for line in file.read_text().splitlines()]
    return findings, list(_lines(findings, how, said))


def _wait(process: subprocess.Popen) -> str:
    """How the process ended, in words; "" if without an error."""
    try:
        code = process.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"does not end within {_TIMEOUT:.0f} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code < 0:
        return f"is killed by {signal.Signals(-code).name}"
    return f"ends with exit code {code}" if code else ""


def _lines(findings: Sequence[Mapping[str, Any]], how: str, said: str) -> Iterator[Line]:
    has_failed, platform, begun = False, "", "jax"
    for finding in findings:
        begun = finding.get("begins", begun)
        if "mark" not in finding:
            continue
        name, text = finding["name"], finding["text"]
        platform = finding.get("platform", platform)
        if finding["mark"] == FAIL:
            has_failed = True
            text = _explained(name, text, said, finding["is_explained"])
        on = f"on {platform}: " if platform and name in ("training", "kernels") else ""
        yield Line(finding["mark"], name, on + text)
    if how and not has_failed:
        text = f"the process that tries this {how}."
        yield Line(FAIL, begun, _explained(begun, text, said, is_explained=False))


def _explained(part: str, text: str, said: str, is_explained: bool) -> str:
    """Why a part failed, with what JAX printed last, and what to do unless `text` says it."""
    texts = [text.replace(ASK_DOCTOR, "").strip()]
    # The output of later parts ends with their own error, which `text` repeats.
    printed = [line.strip() for line in said.splitlines() if line.strip()]
    if printed and part in ("jax", "devices") and printed[-1] not in text:
        texts.append(f"JAX's last line: {printed[-1][:300]}.")
    if not is_explained and part in _REMEDIES:
        texts.append(_REMEDIES[part])
    return " ".join(texts)
