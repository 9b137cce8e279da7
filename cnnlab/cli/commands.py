"""The commands that train and use networks, and the table of all commands. Signature and docstring are the help."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, UseAppendAction, arg, create_mutex_group

from .doctor import doctor
from .listings import datasets, models, recipes
from .output import over_seeds, print_json, print_table, short
from .reproduce import reproduce
from .settings import model_options, recipe_changes
from .summary import summary

if TYPE_CHECKING:
    from cnnlab.experiment import Run, Runs

_INTERRUPTED = 130
_SEEDS = create_mutex_group(required=False)
_RUN = arg(metavar="RUN")
_FOLDER = arg(metavar="FOLDER", help_behavior_hint="")


def train(
    *,
    model: Annotated[str, arg(metavar="NAME")] = "lenet",
    dataset: Annotated[str, arg(metavar="NAME")] = "digits?size=32",
    recipe: Annotated[str, arg(metavar="NAME")] = "thesis",
    out: Annotated[Path | None, _FOLDER] = None,
    changes: Annotated[UseAppendAction[tuple[str, ...]], arg(name="set", metavar="KEY=VALUE")] = (),
    options: Annotated[UseAppendAction[tuple[str, ...]], arg(name="model-set", metavar="KEY=VALUE")] = (),
    seed: Annotated[int, _SEEDS] = 0,
    seeds: Annotated[int | None, _SEEDS, arg(metavar="N", help_behavior_hint="")] = None,
    at_once: Annotated[Literal["auto", "yes", "no"], arg(metavar="auto|yes|no")] = "auto",
    data_dir: Annotated[Path | None, _FOLDER] = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> int:
    """Train a network, measure it on the test images, and leave a run folder with a report.

    Args:
        model: what to train; see cnnlab models.
        dataset: what to train on; see cnnlab datasets. Quote a name with a question mark.
        recipe: how to train; see cnnlab recipes. Or a .toml or .json file.
        out: the run folder to make; without it, a new one in runs/.
        changes: change a field of the recipe, such as epochs=3.
        options: set an option of the model, such as hidden=120,256,84; see cnnlab models lenet.
        seed: of initial weights, noise and order.
        seeds: train the seeds 0 to N-1.
        at_once: seeds at once in one program or one after the other; auto: the faster, on a CPU one after the other.
        data_dir: where the data are.
        overwrite: replace the run that lies in --out.
        quiet: show no progress, only the result.
    """
    from cnnlab.experiment import claim_folder, fit, give_back_folder
    from cnnlab.training import get_recipe

    chosen = get_recipe(recipe).replace(**recipe_changes(changes))
    settings = model_options(model, options)
    folder = claim_folder(model, dataset, recipe) if out is None else out
    print(f"run folder: {short(folder)}", flush=True)
    try:
        with _resumable(folder):
            result = fit(
                model,
                dataset,
                chosen,
                out=folder,
                seed=seed,
                seeds=None if seeds is None else range(seeds),
                model_options=settings,
                data_dir=data_dir,
                progress=not quiet,
                overwrite=overwrite,
                at_once={"auto": None, "yes": True, "no": False}[at_once],
            )
    except BaseException:
        if out is None:
            give_back_folder(folder)
        raise
    return _tell(result, folder, quiet)


def resume(
    run: Annotated[Positional[Path], _RUN], *, data_dir: Annotated[Path | None, _FOLDER] = None, quiet: bool = False
) -> int:
    """Go on with an interrupted run, exactly as if it had never stopped.

    Args:
        run: the run folder, of one seed or several.
        data_dir: where the data are, if they have moved.
        quiet: show no progress, only the result.
    """
    from cnnlab.experiment import how_diverged, seed_folders
    from cnnlab.experiment import resume as go_on
    from cnnlab.training import RunFolder

    children = seed_folders(run)
    folders = [RunFolder.open(path) for path in children or [run]]
    marks = [run / "report.html", *(folder.path / "result.json" for folder in folders)]
    marks += [run / "summary.json"] if children else []
    diverged = {folder.path.name: how_diverged(folder) for folder in folders}
    if all(mark.is_file() for mark in marks) and not all(diverged.values()):
        reasons = {str(folder.read_json("result.json").get("stop_reason")) for folder in folders}
        print(f"nothing to do: {short(run)} is finished ({'; '.join(sorted(reasons))})")
        print(f"report: {short(run / 'report.html')}")
        return 0
    with _resumable(run):
        result = go_on(run, progress=not quiet, data_dir=data_dir)
    for name, how in diverged.items():
        if how is not None:
            print(f"{name} is left as it is: it {how}")
    return _tell(result, run, quiet)


def evaluate(
    run: Annotated[Positional[Path], _RUN], *, data_dir: Annotated[Path | None, _FOLDER] = None, json: bool = False
) -> int:
    """Measure the best network of a run on the test images: accuracy, precision, recall, F1.

    Args:
        run: the run folder, of one seed or several.
        data_dir: where the data are, if they have moved.
        json: print JSON, with the confusion matrix.
    """
    from cnnlab.evaluation import evaluate as measure
    from cnnlab.experiment import load, seed_folders
    from cnnlab.experiment.plan import Plan
    from cnnlab.training import RunFolder
    from cnnlab.training.compilation_cache import use_compilation_cache

    use_compilation_cache()
    children = seed_folders(run)
    folders = children or [run]
    plan, _ = Plan.read(RunFolder.open(folders[0]), data_dir)
    data = plan.dataset
    results = [measure(load(folder), data.test, classes=data.classes) for folder in folders]
    if json:
        values = [{"run": str(f), **result.to_dict("test")} for f, result in zip(folders, results, strict=True)]
        print_json(values if children else values[0])
        return 0
    for folder, result in zip(folders, results, strict=True):
        print(*([f"{folder.name}:"] if children else []), result, sep="\n")
    if children:
        print(over_seeds([result.accuracy for result in results]))
    return 0


def predict(
    run: Annotated[Positional[Path], _RUN],
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]")] = (),
    *,
    top_k: Annotated[int, arg(metavar="K")] = 3,
    json: bool = False,
) -> int:
    """Say what is in image files, with the best network of a run.

    Args:
        run: the run folder.
        images: image files of any size.
        top_k: how many classes to tell of each image.
        json: print JSON.
    """
    from cnnlab.evaluation import predict as classify
    from cnnlab.experiment import load
    from cnnlab.training.compilation_cache import use_compilation_cache

    use_compilation_cache()
    predictions = classify(load(run), images, top_k=top_k)
    if json:
        print_json([{"image": p.image, "labels": p.labels, "probabilities": p.probabilities} for p in predictions])
    else:
        print(*predictions, sep="\n")
    return 0


def report(run: Annotated[Positional[Path], _RUN], *, data_dir: Annotated[Path | None, _FOLDER] = None) -> int:
    """Draw the figures, tables and the page of a run again; without the data, all but the mistakes.

    Args:
        run: the run folder, of one seed or several.
        data_dir: where the data are, if they have moved.
    """
    from cnnlab.experiment import refresh_report
    from cnnlab.training.compilation_cache import use_compilation_cache

    use_compilation_cache()
    page, missing = refresh_report(run, data_dir)
    if missing is not None:
        print(missing)
    print(f"report: {short(page)}")
    return 0


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Let an interruption outside the training loop, or a second one inside, say how to go on where a run has begun."""
    from cnnlab.experiment import seed_folders

    try:
        yield
    except KeyboardInterrupt:
        if (folder / "recipe.json").is_file() or seed_folders(folder):
            command = f"cnnlab resume {shlex.quote(short(folder))}"
            raise KeyboardInterrupt(f"interrupted; go on with:  {command}") from None
        raise


def _tell(result: Run | Runs, folder: Path, quiet: bool) -> int:
    """Print what came out; return the exit code."""
    from cnnlab.experiment import Run

    if result.interrupted:
        if quiet:  # else the progress has said so
            print(f"interrupted; go on with:  cnnlab resume {short(folder)}")
        return _INTERRUPTED
    runs = [result] if isinstance(result, Run) else list(result)
    rows = [(run, run.evaluation, run.history[-1]) for run in runs if run.evaluation is not None]
    _, evaluation, last = rows[0]
    steered = "the test images" if last["monitor"] == "test" else "held-out training images"
    images = f"on {evaluation.images:,} test images"
    if isinstance(result, Run):
        best = f"best epoch {last['best_epoch']} of {last['epoch']}"
        print(f"accuracy {evaluation.accuracy:.2%} {images}, {best}, {steered} chose it")
    else:
        cells = [(str(r.seed), f"{e.accuracy:.2%}", f"{h['best_epoch']} of {h['epoch']}") for r, e, h in rows]
        print_table(("seed", "accuracy", "best epoch"), cells)
        print(f"{over_seeds([e.accuracy for _, e, _ in rows])} {images}, {steered} chose the epochs")
    print(f"report: {short(folder / 'report.html')}")
    return 0


def _later(command: Callable[..., int]) -> Callable[..., Any]:
    """A function with the same signature that only binds the arguments, for tyro."""

    @functools.wraps(command)
    def bind(*args: Any, **options: Any) -> Callable[[], int]:
        return functools.partial(command, *args, **options)

    return bind


_ALL = (train, resume, evaluate, predict, report, reproduce, models, summary, datasets, recipes, doctor)
COMMANDS: dict[str, Callable[..., Any]] = {command.__name__: _later(command) for command in _ALL}
