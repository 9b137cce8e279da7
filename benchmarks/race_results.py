"""The results of a race: the runs so far in a file of lines, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import BenchmarkError, summary, table


def read_runs(path: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the finished runs in the file, by seed; BenchmarkError where they were made under other settings.

    The first line holds the settings, each other one a run. A line that a killed process left unfinished is ignored.
    """
    if not path.is_file():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    found = [value for line in lines if (value := _parsed(line)) is not None]
    if not found:
        return []
    if found[0] != json.loads(json.dumps(dict(settings))):
        differing = sorted(k for k in {*found[0], *settings} if found[0].get(k) != _plain(settings.get(k)))
        raise BenchmarkError(
            f"Expected runs with these settings in {path}, got others ({', '.join(differing)}); "
            "do add --fresh to begin anew, or name another --json."
        )
    return sorted({run["seed"]: run for run in found[1:]}.values(), key=lambda run: run["seed"])


def append_run(path: Path, settings: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Add a run to the file, with the settings first where it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = [] if text else [json.dumps(dict(settings))]
    start = "" if text.endswith("\n") or not text else "\n"  # after a line that a killed process left unfinished
    with path.open("a", encoding="utf-8") as file:
        file.write(start + "".join(f"{line}\n" for line in [*lines, json.dumps(dict(run))]))


def p_value(values: Sequence[float], target: float) -> float | None:
    """Return the one-sided p-value of Student's t-test that the mean is above `target`; None for fewer than two values.

    Small means: were the true mean just `target`, a sample mean as high as this one would be rare.
    """
    from scipy.stats import ttest_1samp

    if len(values) < 2 or len(set(values)) == 1:
        return None
    return float(ttest_1samp(values, target, alternative="greater").pvalue)


def summarized(runs: Sequence[Mapping[str, Any]], target: float, peers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the summaries of seconds and accuracies, the test against the target, and the ratio to the peer.

    Args:
        runs: what `Racer.run` returned.
        target: mean accuracy to reach, in percent.
        peers: what the peer took in the same rounds, `seconds` each; empty for no peer.
    """
    accuracies = [run["accuracy"] for run in runs]
    found = {key: summary([run[key] for run in runs]) for key in ("seconds", "accuracy", "accuracy_plain")}
    result: dict[str, Any] = {
        **found,
        "target": target,
        "reached": found["accuracy"]["mean"] >= target,
        "p_value": p_value(accuracies, target),
        "runs": list(runs),
    }
    if peers:
        pairs = [(run["seconds"], peer["seconds"]) for run, peer in zip(runs, peers, strict=False)]
        result["peer"] = {
            "seconds": summary([peer["seconds"] for peer in peers]),
            "wall_seconds": summary([peer["wall_seconds"] for peer in peers]),
            "ratio": summary([peer / ours for ours, peer in pairs]),
        }
    return result


def report(result: Mapping[str, Any]) -> str:
    """Return the table and the verdict as text."""
    names = {"seconds": "seconds", "accuracy": "accuracy, 6 views, %", "accuracy_plain": "accuracy, one view, %"}
    rows = [_row(name, result[key]) for key, name in names.items()]
    if "peer" in result:
        rows += [_row("peer: seconds", result["peer"]["seconds"])]
        rows += [_row("peer / ours, by rounds", result["peer"]["ratio"])]
    lines = [table(["", "n", "mean", "sd", "min", "max"], rows), ""]
    word = "reached" if result["reached"] else "not reached"
    p = result["p_value"]
    certainty = "" if p is None else f" (p = {p:.2g} that the true mean is no higher)"
    lines.append(f"mean of {result['target']:g} %: {word}{certainty}")
    return "\n".join(lines)


def page_table(folder: Path) -> str:
    """Return a Markdown table of all races in a folder, those of `--quick` left out."""
    head = ("recipe", "device", "n", "accuracy, 6 views", "accuracy, one view", "seconds a run", "made with")
    rows = []
    for path in sorted(folder.glob("race*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("benchmark") == "race" and not path.stem.endswith("_quick"):
            rows.append(_page_row(result, path.name))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _page_row(result: Mapping[str, Any], file: str) -> list[str]:
    env, settings = result["environment"], result["settings"]
    device = env["device_kind"] if env["backend"] != "cpu" else f"{env['cpu']}, {env['cpus']} threads"
    accuracies = [f"{_mean(result[key], 2)} %" for key in ("accuracy", "accuracy_plain")]
    revision, day = (env["git_revision"] or "unknown")[:7], env["started"][:10]
    made = f"{settings['recipe']['precision']}, jax {env['jax']}, revision {revision}, {day}"
    return [f"`{settings['recipe']['name']}`", device, str(result["accuracy"]["n"]), *accuracies,
            _mean(result["seconds"], 1), f"{made}; `benchmarks/results/{file}`"]  # fmt: skip


def _mean(of: Mapping[str, Any], digits: int) -> str:
    return f"{of['mean']:,.{digits}f}" + ("" if of["sd"] is None else f" ± {of['sd']:.{digits}f}")


def _row(name: str, of: Mapping[str, Any]) -> list[str]:
    sd = "-" if of["sd"] is None else f"{of['sd']:.3f}"
    return [name, str(of["n"]), *(f"{of['mean']:.3f}", sd, f"{of['min']:.3f}", f"{of['max']:.3f}")]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
