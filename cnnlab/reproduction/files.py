"""Results as files: JSON, which is read again, CSV and figures."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cnnlab.report import save_figure
from cnnlab.training import RunFolderError
from cnnlab.training.run_folder import replace_file, strict

from .results import Results, RowResults, revision
from .study import Study

_NUMBERS = re.compile(r"\[\s+((?:-?[\d.]+(?:e[-+]?\d+)?|null)(?:,\s+(?:-?[\d.]+(?:e[-+]?\d+)?|null))*)\s+\]")


def command(results: Results, **typed: Any) -> str:
    """Return what one types to get these results.

    Args:
        results: say study and version.
        typed: further arguments of the command line; what is None, False or empty is left out.
    """
    words = ["cnnlab", "reproduce", results.study]
    for name, value in {"quick": results.quick, "epochs": results.epochs, **typed}.items():
        if value not in (None, False, (), []):
            values = [] if value is True else value if isinstance(value, list | tuple) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def read_results(path: Path) -> Results | None:
    """Read what `write_found` wrote as JSON; None where there is no such file, RunFolderError for another one."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        fields = RowResults.__dataclass_fields__
        # Older files lack the seeds asked for; what they call planned was no more than those.
        told = [{"asked_seeds": row.get("planned_seeds"), **row} for row in value["rows"]]
        rows = [RowResults(**{key: row[key] for key in row if key in fields}) for row in told]
        found = {row.row: row for row in rows}
        return Results(value["study"], value["quick"], value["epochs"], found, value["measured"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        got = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunFolderError(f"Expected the results of a study in {path}, got '{got}'; do restore it.") from error


def write_found(
    study: Study, results: Results, out: Path, stem: str | None = None, figures: Path | None = None
) -> None:
    """Write JSON, CSV and figures, and remove figures of before that cannot be drawn any more.

    Args:
        study: the study.
        results: what it found; nothing is written when that is nothing.
        out: folder of the JSON and CSV file.
        stem: what they are called; by default "results".
        figures: folder of the figures, called `STEM-FIGURE.png`; by default `out`, and `FIGURE.png`.
    """
    if results.empty:
        return
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / f"{stem or 'results'}.json", as_json(results, study).encode())
    replace_file(out / f"{stem or 'results'}.csv", as_csv(results, study).encode())
    drawn = study.draw(results)
    for name in study.figures:
        path = (figures or out) / f"{stem + '-' if stem else ''}{name}.png"
        if name in drawn:
            save_figure(drawn[name], path)
        else:
            path.unlink(missing_ok=True)


def as_json(results: Results, study: Study) -> str:
    """Return claim, command, verdicts, rows with n, mean, standard deviation and every run, as strict JSON."""
    rows = []
    for row in results.rows.values():
        found = {"n": len(row.values("test_accuracy")), "mean": None, "sd": row.sd("test_accuracy")}
        if found["n"]:
            found["mean"] = row.mean("test_accuracy")
        plain = asdict(row)
        runs = plain.pop("runs")
        revisions = sorted({revision(run) for run in runs})
        rows.append({**plain, "test_accuracy": found, "revisions": revisions, "runs": runs})
    value = {
        "study": results.study,
        "quick": results.quick,
        "epochs": results.epochs,
        "claim": study.claim,
        "source": study.source,
        "command": command(results, seeds=results.asked_seeds),
        "verdicts": [asdict(verdict) for verdict in study.verdicts(results)],
        "measured": results.measured,
        "rows": rows,
    }
    text = json.dumps(strict(value, results.name), indent=1, allow_nan=False, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n"  # a curve on one line


def as_csv(results: Results, study: Study) -> str:
    """Return a line per run, without curves and other nested values; where nothing was trained, the table."""
    lines = [{"row": row.row, **run} for row in results.rows.values() for run in row.runs]
    names = dict.fromkeys(key for line in lines for key, value in line.items() if not isinstance(value, dict))
    text = io.StringIO(newline="")
    if lines:
        writer = csv.DictWriter(text, list(names), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    else:
        head, cells = study.table(results)
        csv.writer(text).writerows([head, *cells])
    return text.getvalue()
