"""What the soak run found, as text for people and as JSON. Used by `soak`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Figures:
    """Everything that is reported. Times are seconds, sizes bytes.

    faults: by kind, `count` and `seconds`. errors: those that programs had to expect, by fault and errno.
    load: `counts` and `slowest` by operation, `written`, `verified`, `steps` by program. at_first, at_last:
    by mount, `memory`, `resident`, `threads`, `files`. verified: `files`, `bytes` through a mount, the API.
    """

    seed: int
    seconds: float = 0.0
    faults: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, dict[str, int]] = field(default_factory=dict)
    load: dict[str, Any] = field(default_factory=dict)
    mounts: int = 0
    transactions: int = 0
    at_first: dict[str, dict[str, int]] = field(default_factory=dict)
    at_last: dict[str, dict[str, int]] = field(default_factory=dict)
    verified: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def show(figures: Figures, facts: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"{name:12} {value}" for name, value in facts.items()]
    lines += [
        "",
        f"Result: {'FAILED' if figures.problems else 'clean'} after {figures.seconds:.0f} s of load.",
    ]
    lines += [f"  PROBLEM: {text}" for text in figures.problems]
    lines += [f"  {text}" for text in figures.notes]
    lines += ["", f"{'Faults':34} {'count':>6} {'seconds':>8}   errors that programs got"]
    for name, fault in figures.faults.items():
        errors = figures.errors.get(name, {})
        said = ", ".join(f"{count} {number}" for number, count in sorted(errors.items())) or "none"
        lines.append(f"{name:34} {fault['count']:6.0f} {fault['seconds']:8.1f}   {said}")
    load = figures.load
    if load:
        lines += ["", f"{'Operations':20} {'count':>10} {'slowest, s':>11}"]
        for name, count in sorted(load["counts"].items()):
            lines.append(f"{name:20} {count:10,} {load['slowest'].get(name, 0.0):11.3f}")
        lines += ["", f"Written {load['written']:,} bytes; read and compared {load['verified']:,} bytes."]
        lines.append(f"Steps: {', '.join(f'{name} {count:,}' for name, count in load['steps'].items())}.")
        lines.append(
            f"Transactions of the database: {figures.transactions:,}. Mount processes: {figures.mounts}."
        )
    for name, verified in figures.verified.items():
        lines.append(
            f"At the end, through {'a fresh mount' if name == 'mount' else 'the API'}: "
            f"{verified['files']:,} files, {verified['bytes']:,} bytes, all as they must be."
        )
    if figures.at_last:
        lines += ["", f"{'Mount':10} {'':8} {'own memory, MB':>15} {'threads':>8} {'open files':>11}"]
        for moment, measured in (("at first", figures.at_first), ("at last", figures.at_last)):
            for mount, sizes in measured.items():
                memory = sizes["memory"] / 1e6
                lines.append(f"{mount:10} {moment:8} {memory:15.1f} {sizes['threads']:8} {sizes['files']:11}")
    return "\n".join(lines) + "\n"


def write(figures: Figures, facts: Mapping[str, Any], directory: Path) -> list[Path]:
    """Both files; where they are."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / "soak.txt", directory / "soak.json"]
    paths[0].write_text(show(figures, facts))
    paths[1].write_text(json.dumps({"facts": dict(facts), **asdict(figures)}, indent=2) + "\n")
    return paths
