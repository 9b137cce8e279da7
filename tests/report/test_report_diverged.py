"""A run that diverged is told as such: numbers may be missing, and nothing is offered to go on."""

import json
import shlex

import pytest

from cnnlab.report import write_report

REASON = "diverged in epoch {} (training loss nan); do lower learning_rate (1)"


@pytest.fixture
def make_diverged(make_run):
    """A function that writes a run that diverged in its last epoch; in the first when there is one epoch only."""

    def make(folder, epochs, **options):
        make_run(folder, epochs=epochs, finished=False, **options)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        best = {key: lines[-2][key] if epochs > 1 else None for key in ("best_epoch", "best_accuracy")}
        lines[-1] |= {**dict.fromkeys(("train_loss", "loss", "accuracy")), "event": "diverged", **best}
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = {"stop_reason": REASON.format(epochs), "epochs": epochs, **best, "protocol": "thesis"}
        (folder / "result.json").write_text(json.dumps({**result, "train_seconds": 1.0, "evaluation": None}))
        return folder

    return make


def test_a_run_that_diverged_says_when_what_is_kept_and_what_to_do(make_diverged, read_page, tmp_path):
    page = read_page(write_report(make_diverged(tmp_path / "run", 6)))
    assert "lenet on cifar10 diverged in epoch 6; best before that at epoch 4, 52.5 %." in page.text
    assert f"{REASON.format(6)[1:]}." in page.text and page.text.count("diverged in epoch 6 (") == 0  # capital letter
    assert "The test set steered" in page.text and "read once" not in page.text
    assert "resume" not in page.text.lower() and "still running" not in page.text.lower()
    assert len(page.all("img")) == 1


def test_a_run_that_diverged_at_once_draws_with_no_number_to_draw(make_diverged, read_page, tmp_path):
    page = read_page(write_report(make_diverged(tmp_path / "run", 1)))
    assert "lenet on cifar10 diverged in epoch 1; no epoch before that is kept." in page.text
    assert "best test accuracy – best epoch – of 1" in page.text
    assert "optimistic" not in page.text and len(page.all("img")) == 1


def test_seeds_that_diverged_are_counted_and_left_out_of_the_mean(make_run, make_diverged, read_page, tmp_path):
    make_diverged(tmp_path / "seed-0", 1, seed=0)
    make_run(tmp_path / "seed-1", seed=1)
    make_diverged(tmp_path / "seed-2", 6, seed=2)
    make_run(tmp_path / "seed-3", seed=3, epochs=2, finished=False)
    page = read_page(write_report(tmp_path))
    assert "(one seed, so no spread is known; 2 seeds of 4 diverged; 1 seed of 4 still to finish)." in page.text
    assert f"Seed 0: {REASON.format(1)}." in page.text and f"Seed 2: {REASON.format(6)}." in page.text
    commands = [line for line in page.text.split("cnnlab resume ")[1:]]
    assert len(commands) == 1 and commands[0].startswith(shlex.quote(str(tmp_path / "seed-3")))
    assert "The test set steered" in page.text


def test_when_every_seed_diverged_the_headline_says_so(make_diverged, read_page, tmp_path):
    for seed in (0, 1):
        make_diverged(tmp_path / f"seed-{seed}", 1, seed=seed)
    page = read_page(write_report(tmp_path))
    assert "lenet on cifar10: 2 seeds of 2 diverged." in page.text
    assert "read once" not in page.text


def test_sessions_after_the_first_are_listed_by_their_dates(make_run, read_page, tmp_path):
    folder = make_run(tmp_path / "run")
    sessions = [{"started": "2025-01-02T03:04:05+00:00", "variables": {}}, "damaged"]
    (folder / "environment.json").write_text(json.dumps({"jax": "0.10.1", "resumed": sessions}))
    assert "resumed 2025-01-02T03:04:05+00:00, –" in read_page(write_report(folder)).text
