"""Gather the finished runs of thesis_study.py: JSON, CSV, figures and the table of docs/reproduction.md.

Called by `python examples/thesis_study.py`; not meant to be run by itself.
"""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CLAIM = 0.65
DOCS = Path(__file__).resolve().parent.parent / "docs"
_FACTS = ("python", "jax", "jaxlib", "flax", "optax", "device_kind", "cpu", "started")


def gather(rows: Iterable[Any], out: Path, docs: Path = DOCS) -> None:
    """Read every finished run below `out` and write what the docs show.

    Args:
        rows: the lines of the study (`thesis_study.Row`).
        out: holds `ROW/seed-N` run folders.
        docs: gets `results/thesis.json` and `.csv`, `figures/thesis-*.png`, and the table of `reproduction.md`.
    """
    from cnnlab.report.marked import replace_marked

    results, figures, page = docs / "results", docs / "figures", docs / "reproduction.md"
    target = results / "thesis.json"
    before = json.loads(target.read_text()) if target.exists() else {"rows": []}
    known = {(entry["row"], run["seed"]): run for entry in before["rows"] for run in entry["runs"]}
    table = [_read_row(row, out, known) for row in rows]
    finished = [entry for entry in table if entry["runs"]]
    if not finished:
        raise SystemExit(f"Expected finished runs in {out}, got none; do run examples/thesis_study.py first.")
    reference = next((entry for entry in finished if entry["row"] == "literal"), None)
    for entry in finished:
        entry["difference_to_literal"] = _difference(entry, reference) if reference else None
        entry["same_code_as_literal"] = _same_code(entry, reference) if reference else None
    results.mkdir(parents=True, exist_ok=True)
    figures.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"claim": CLAIM, "rows": table}, indent=1) + "\n")
    _write_csv(finished, results / "thesis.csv")
    _draw(finished, out, figures)
    replace_marked(page, "thesis table", _table(table))
    print(f"wrote {target}, {results / 'thesis.csv'}, {figures}/thesis-*.png and the table of {page}")


def _read_row(row: Any, out: Path, known: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Return a row with its finished runs; those whose folder is gone as an earlier call has written them."""
    runs = []
    for seed in range(row.seeds):
        folder = out / row.name / f"seed-{seed}"
        if (folder / "result.json").exists():
            runs.append(_read_run(folder, seed))
        elif (row.name, seed) in known:
            runs.append(_with_revision(known[row.name, seed]))
    accuracies = [run["test_accuracy"] for run in runs]
    return {
        "row": row.name,
        "what": row.what,
        "command": f"python examples/thesis_study.py --rows {row.name}",
        "planned_seeds": row.seeds,
        "n": len(runs),
        "mean": statistics.fmean(accuracies) if runs else None,
        "sd": statistics.stdev(accuracies) if len(runs) > 1 else None,
        "revisions": sorted({_revision(run) for run in runs}),
        "runs": runs,
    }


def _read_run(folder: Path, seed: int) -> dict[str, Any]:
    result = json.loads((folder / "result.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    environment = json.loads((folder / "environment.json").read_text())
    return {
        "seed": seed,
        "test_accuracy": result["evaluation"]["accuracy"],
        "monitored_accuracy": result["best_accuracy"],
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "stop_reason": result["stop_reason"],
        "last_train_loss": metrics[-1]["train_loss"],
        "last_train_accuracy": metrics[-1]["train_accuracy"],
        "train_seconds": result["train_seconds"],
        "images_per_second": statistics.median(m["images_per_second"] for m in metrics),
        "git_revision": environment.get("git_revision"),
        "git_dirty": environment.get("git_dirty"),
        "environment": {name: environment.get(name) for name in _FACTS},
    }


def _with_revision(run: dict[str, Any]) -> dict[str, Any]:
    """Return a run that was written before runs had a revision of their own, with what is known of it."""
    environment = dict(run["environment"])
    revision = {"git_revision": environment.pop("git_revision", None), "git_dirty": None}
    return {**revision, **run, "environment": environment}


def _revision(run: dict[str, Any]) -> str:
    return (run["git_revision"] or "unknown") + (", changed" if run["git_dirty"] else "")


def _same_code(entry: dict[str, Any], reference: dict[str, Any]) -> bool | None:
    """Whether a row and the literal reading ran on one revision without changes; None where that is not known."""
    runs = [*entry["runs"], *reference["runs"]]
    known = {run["git_revision"] for run in runs} - {None}
    if len(known) > 1 or any(run["git_dirty"] for run in runs):
        return False
    return None if any(run["git_revision"] is None or run["git_dirty"] is None for run in runs) else True


def _difference(entry: dict[str, Any], reference: dict[str, Any]) -> dict[str, float] | None:
    """Return the difference of means to the literal reading and its standard error."""
    if entry["sd"] is None or reference["sd"] is None or entry is reference:
        return None
    error = (entry["sd"] ** 2 / entry["n"] + reference["sd"] ** 2 / reference["n"]) ** 0.5
    return {"mean": entry["mean"] - reference["mean"], "standard_error": error}


def _write_csv(table: list[dict[str, Any]], path: Path) -> None:
    with open(path, "w", newline="") as file:
        fields = [name for name in table[0]["runs"][0] if name != "environment"]
        writer = csv.DictWriter(file, ["row", *fields], extrasaction="ignore")
        writer.writeheader()
        for entry in table:
            writer.writerows({"row": entry["row"], **run} for run in entry["runs"])


def _verdict(entry: dict[str, Any]) -> str:
    """Judge by a rule fixed beforehand: reached when 65 % lies within two standard deviations."""
    if not entry["n"]:
        return "not run"
    if entry["sd"] is None:
        return "one run: no verdict"
    return "reaches 65 %" if entry["mean"] + 2 * entry["sd"] >= CLAIM else "does not reach 65 %"


def _table(table: list[dict[str, Any]]) -> str:
    lines = [
        "| row | what differs | claim | ours: test accuracy (n) | to literal | best epoch | training loss | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in table:
        ours = to_literal = best = loss = "-"
        if entry["n"]:
            sd = f" ± {100 * entry['sd']:.2f}" if entry["sd"] is not None else ""
            ours = f"{100 * entry['mean']:.2f}{sd} % ({entry['n']})"
            difference = entry.get("difference_to_literal")
            if difference:
                to_literal = f"{100 * difference['mean']:+.2f} ± {100 * difference['standard_error']:.2f}"
            best = " ".join(str(run["best_epoch"]) for run in entry["runs"])
            loss = f"{statistics.fmean(run['last_train_loss'] for run in entry['runs']):.2f}"
        lines.append(
            f"| `{entry['row']}` | {entry['what']} | 65 % | {ours} | {to_literal} | {best} | {loss} "
            f"| {_verdict(entry)} |"
        )
    return "\n".join(lines)


def _draw(table: list[dict[str, Any]], out: Path, figures: Path) -> None:
    from matplotlib.figure import Figure

    from cnnlab.report import plot_learning_curves, save_figure

    figure = Figure(figsize=(9.6, 0.45 * len(table) + 1.3), layout="constrained")
    axes = figure.add_subplot()
    for y, entry in enumerate(table):
        values = [100 * run["test_accuracy"] for run in entry["runs"]]
        axes.plot(values, [y] * len(values), "o", color="#0072B2", alpha=0.6, markersize=6)
        axes.plot([100 * entry["mean"]] * 2, [y - 0.3, y + 0.3], color="#0072B2", linewidth=2)
    axes.axvline(100 * CLAIM, color="#D55E00", linewidth=1.5)
    axes.annotate("claim: 65 %", (100 * CLAIM, -0.75), color="#D55E00", ha="right", va="center", xytext=(-6, 0),
                  textcoords="offset points")  # fmt: skip
    axes.set_yticks(range(len(table)), [entry["row"] for entry in table])
    axes.set_ylim(len(table) - 0.4, -1.1)
    axes.set_xlabel("test accuracy at the best epoch, % (a dot per seed, a bar at the mean)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    save_figure(figure, figures / "thesis-accuracies.png")

    for name in ("literal", "modern"):
        folders = [path.parent for path in sorted(out.glob(f"{name}/seed-*/result.json"))]
        histories = [
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in folders
        ]
        if histories:
            save_figure(plot_learning_curves(histories), figures / f"thesis-{name}-curves.png")
