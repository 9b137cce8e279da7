"""The results of a race: the runs so far in a file of lines, and what they say together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from measure import BenchmarkError, summary, table


class Finished(NamedTuple):
    """What a file of lines holds: runs of ours by seed, and calls of the peer by round."""

    runs: list[dict[str, Any]]
    rounds: list[dict[str, Any]]


def read_finished(path: Path, settings: Mapping[str, Any]) -> Finished:
    """Return what is finished; BenchmarkError where it was made under other settings.

    The first line holds the settings, each other one a run, with its `seed`, or a call of the peer, with its `round`.
    A line that a killed process left unfinished is ignored.
    """
    if not path.is_file():
        return Finished([], [])
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    found = [value for line in lines if (value := _parsed(line)) is not None]
    if not found:
        return Finished([], [])
    there, here = _that_decide(found[0]), _that_decide(settings)
    if there != here:
        differing = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
        raise BenchmarkError(
            f"Expected runs with these settings in {path}, got others ({', '.join(differing)}); "
            "do add --fresh to begin anew, or name another --json."
        )
    return Finished(*([line for line in found[1:] if key in line] for key in ("seed", "round")))


def append_line(path: Path, settings: Mapping[str, Any], line: Mapping[str, Any]) -> None:
    """Add a run or a call of the peer to the file, with the settings first where no whole line is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    begun = any(_parsed(there) is not None for there in text.split("\n"))
    lines = [line] if begun else [dict(settings), line]
    start = "" if text.endswith("\n") or not text else "\n"  # after a line that a killed process left unfinished
    with path.open("a", encoding="utf-8") as file:
        file.write(start + "".join(f"{json.dumps(dict(value))}\n" for value in lines))


def p_value(values: Sequence[float], target: float) -> float | None:
    """Return the one-sided p-value of Student's t-test that the mean is above `target`; None for fewer than two values.

    Small means: were the true mean just `target`, a sample mean as high as this one would be rare.
    """
    from scipy.stats import ttest_1samp

    if len(values) < 2 or len(set(values)) == 1:
        return None
    return float(ttest_1samp(values, target, alternative="greater").pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def summarized(
    runs: Sequence[Mapping[str, Any]], target: float, rounds: Sequence[Mapping[str, Any]] = (), *, every: int = 1
) -> dict[str, Any]:
    """Return the summaries of seconds and accuracies, the test against the target, and the ratio to the peer.

    Args:
        runs: what `Racer.run` returned, by seed.
        target: mean accuracy to reach, in percent.
        rounds: what `Peer.run` returned, each with its `round`; empty for no peer.
        every: runs of ours in a round.

    Returns:
        `reached` is None for one run, which says nothing about a mean. The `ratio` of a round is the mean of the peer's
        seconds in it over the mean of ours.
    """
    accuracies = [run["accuracy"] for run in runs]
    found = {key: summary([run[key] for run in runs]) for key in ("seconds", "accuracy", "accuracy_plain")}
    result: dict[str, Any] = {
        **found,
        "target": target,
        "reached": found["accuracy"]["mean"] >= target if len(runs) > 1 else None,
        "p_value": p_value(accuracies, target),
        "runs": list(runs),
    }
    if rounds:
        ours = [fmean(run["seconds"] for run in runs[every * of["round"] :][:every]) for of in rounds]
        result["peer"] = {
            "seconds": summary([seconds for of in rounds for seconds in of["seconds"]]),
            "wall_seconds": summary([of["wall_seconds"] for of in rounds]),
            "ratio": summary([fmean(of["seconds"]) / mean for of, mean in zip(rounds, ours, strict=True)]),
            "rounds": list(rounds),
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
    if "petaflop" in result:
        total = result["petaflop"]["total"]
        speed = 1000 * total / result["seconds"]["mean"]
        lines.append(f"{total:.3g} PFLOP a run, {speed:.3g} TFLOP/s")
    return "\n".join([*lines, _verdict(result)])


def _verdict(result: Mapping[str, Any]) -> str:
    if result["accuracy"]["n"] == 1:
        return f"mean of {result['target']:g} %: undecided, since one run says nothing about a mean"
    word, p = "reached" if result["reached"] else "not reached", result["p_value"]
    certainty = "" if p is None else f" (p = {p:.2g} that the true mean is no higher)"
    return f"mean of {result['target']:g} %: {word}{certainty}"


def page_table(folder: Path) -> str:
    """Return a Markdown table of all races in a folder, those of `--quick` left out."""
    head = ("recipe", "device", "n", "accuracy, 6 views", "accuracy, one view", "p", "PFLOP a run", "seconds a run",
            "peer's seconds over ours", "made with")  # fmt: skip
    rows = []
    for path in sorted(folder.glob("race*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("benchmark") == "race" and not path.stem.endswith("_quick"):
            rows.append(_page_row(result, path.name))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _page_row(result: Mapping[str, Any], file: str) -> list[str]:
    env, settings = result["environment"], result["settings"]
    device = env["device_kind"] if env["backend"] != "cpu" else f"{env['cpu']}, {env['cpus']} threads"
    watts = [gpu["power_limit_watts"] for gpu in env.get("gpus") or () if gpu["power_limit_watts"]]
    if watts and env["backend"] != "cpu":
        device += f", {watts[0]:g} W"
    accuracies = [f"{_mean(result[key], 2)} %" for key in ("accuracy", "accuracy_plain")]
    peer = "no peer"
    if "peer" in result:
        peer = f"{_mean(result['peer']['ratio'], 2)}, `{settings['peer']['script']}`"
    made = f"{settings['recipe']['precision']}, jax {env['jax']}, revision {_revisions(result)}, {env['started'][:10]}"
    return [f"`{settings['recipe']['name']}`", device, str(result["accuracy"]["n"]), *accuracies,
            _p(result), f"{result['petaflop']['total']:.3f}", _mean(result["seconds"], 1), peer,
            f"{made}; `benchmarks/results/{file}`"]  # fmt: skip


def _revisions(result: Mapping[str, Any]) -> str:
    """The revisions of the code that made the runs, in their order."""
    codes = [run["code"] for run in result["runs"]]
    words = [(code["revision"] or "unknown")[:7] + (" with changes" if code["dirty"] else "") for code in codes]
    return " and ".join(dict.fromkeys(words))


def _p(result: Mapping[str, Any]) -> str:
    return "-" if result["p_value"] is None else f"{result['p_value']:.2g}"


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


def _that_decide(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain JSON, the recipe without what it is called and what is told of it, which train nothing."""
    from cnnlab.training import Recipe, RecipeError

    plain = json.loads(json.dumps(dict(settings)))
    try:
        recipe = Recipe.from_dict(plain["recipe"]).replace(name="", source="", result="")
        plain["recipe"] = recipe.to_dict()
    except (KeyError, RecipeError):  # of another version: it stays as it is, and differs
        pass
    return plain
