"""What a person sees: plain lines in a file, a live line on a terminal."""

import errno
import io
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest

import cnnlab
from cnnlab.training import Trainer, get_recipe
from cnnlab.training.progress import console_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def info(**changes):
    start = {
        "recipe": get_recipe("thesis"),
        "seed": 3,
        "parameters": 264_806,
        "train_images": 50_000,
        "monitor_images": 10_000,
        "monitor": "test",
        "steps_per_epoch": 1563,
        "epochs": 100,
        "epoch": 0,
    }
    return {**start, **changes}


def record(epoch: int, **changes):
    values = {
        "epoch": epoch,
        "train_loss": 1.5,
        "monitor": "test",
        "loss": 1.25,
        "accuracy": 0.5,
        "learning_rate": 1e-3,
        "best_accuracy": 0.625,
        "best_epoch": 1,
        "seconds": 10.0,
        "images_per_second": 12_345.6,
        "event": None,
    }
    return {**values, **changes}


def told(stream, *, reason="completed all 100 epochs", folder=None, start=None, records=()):
    """Play a short run to the console and return what it wrote."""
    console = console_progress("lenet on cifar10", "the archive", folder, stream)
    console.on_start(start or info())
    console.on_compile(None)
    console.on_compile(2.345)
    for one in records or [record(1, best_accuracy=0.5), record(2)]:
        console.on_steps(one["epoch"], 600, 1563)
        console.on_steps(one["epoch"], 1563, 1563)
        console.on_epoch(one)
    console.on_stop(reason)
    return stream.getvalue()


def on_screen(text: str) -> list[str]:
    """The lines as a terminal shows them after the last character: \\r goes back and overwrites."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        lines.append(shown.rstrip())
    return lines


def test_a_file_gets_plain_lines_without_control_characters():
    text = told(io.StringIO())
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text) is None and text.endswith("\n")
    lines = text.splitlines()
    assert lines[0] == "lenet on cifar10: 264,806 parameters, recipe thesis, seed 3"
    assert re.fullmatch(
        rf"on .+ \(\d+ \w+\), cnnlab {re.escape(cnnlab.__version__)}, "
        rf"jax {version('jax')}, flax {version('flax')}, optax {version('optax')}",
        lines[1],
    )
    assert lines[2] == "50,000 training images (the archive), 10,000 test images after each epoch"
    assert lines[3] == "compiled in 2.3 s"
    assert lines[4] == (
        "epoch   1/100  loss 1.5000  test loss 1.2500  accuracy  50.00%* best 50.00% (1)  rate 1.0e-03  "
        "12,346 images/s  at most 16 min left"
    )
    assert lines[5].startswith("epoch   2/100  ") and "50.00%  best 62.50% (1)" in lines[5]
    assert lines[6:] == ["completed all 100 epochs"]


def test_a_terminal_gets_a_line_that_is_drawn_over_and_ends_up_with_the_same_lines():
    live, plain = told(Terminal()), told(io.StringIO())
    assert "\r" in live and "compiling ..." in live and "600/1563 steps" in live and "\x1b" not in live
    assert on_screen(live) == [line.rstrip() for line in plain.split("\n")]


def test_the_bar_grows_and_is_not_drawn_when_the_epoch_is_full():
    stream = Terminal()
    console = console_progress("t", "s", None, stream)
    for done in (0, 50, 100):
        console.on_steps(1, done, 100)
    assert [stream.getvalue().count(c) for c in "━╌"] == [12, 36]
    assert "100/100" not in stream.getvalue()


@pytest.mark.parametrize(
    ("event", "words"), [("cut", "rate cut"), ("converged", "converged"), ("target", "target reached")]
)
def test_an_event_stands_at_the_end_of_its_line(event, words):
    text = told(io.StringIO(), records=[record(1, event=event)])
    assert text.splitlines()[4].endswith(f"left  {words}")


def test_held_out_images_are_called_that():
    text = told(io.StringIO(), start=info(monitor="validation", monitor_images=5000))
    assert "5,000 validation images after each epoch, held out of the training images" in text


def test_a_resumed_run_says_where_it_goes_on():
    assert "\ngoing on after epoch 7\n" in told(io.StringIO(), start=info(epoch=7))
    assert "going on" not in told(io.StringIO())


def test_an_interrupted_run_says_how_to_go_on_in_words_that_a_shell_takes():
    folder = Path("/tmp/my runs/lenet's")
    line = told(io.StringIO(), reason="interrupted in epoch 2", folder=folder).splitlines()[-1]
    assert line.startswith("nothing is lost; go on with:  cnnlab resume ")
    assert shlex.split(line.partition("with:")[2]) == ["cnnlab", "resume", str(folder)]


@pytest.mark.parametrize("reason", ["completed all 2 epochs", "diverged in epoch 2", "converged at epoch 2: so"])
def test_a_run_that_ended_does_not_tell_how_to_go_on(reason):
    text = told(io.StringIO(), reason=reason, folder=Path("/tmp/run"))
    assert text.splitlines()[-1] == reason and "resume" not in text
    assert "resume" not in told(io.StringIO(), reason="interrupted in epoch 2")  # nothing was saved


def test_what_is_left_follows_the_last_five_epochs():
    slow_then_fast = [record(n, seconds=100.0 if n < 3 else 1.0) for n in range(1, 8)]
    lines = told(io.StringIO(), records=slow_then_fast).splitlines()
    assert "at most 2.8 h left" in lines[4] and "at most 93 s left" in lines[10]


@pytest.mark.parametrize(("number", "goes_on"), [(errno.EIO, True), (errno.EPIPE, False)])
def test_a_run_whose_terminal_is_gone_goes_on_in_silence(number, goes_on):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(number, "gone")

    if goes_on:
        assert told(Gone()) == ""
    else:  # a reader that has left is another matter
        with pytest.raises(BrokenPipeError):
            told(Gone())


def test_a_real_run_tells_all_that(recipe, split, network, capsys):
    trainer = Trainer(recipe(), split(11), split(5, seed=1), "test")
    stream = Terminal()
    trainer.run(
        network(),
        callbacks=[
            console_progress("small on noise", "made up", None),
            console_progress("small on noise", "made up", None, stream),
        ],
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "small on noise: 179 parameters, recipe small, seed 0"
    assert lines[2] == "11 training images (made up), 5 test images after each epoch"
    assert re.fullmatch(r"compiled in \d+\.\d s", lines[3])
    assert [re.match(r"epoch   (\d)/4  loss ", line)[1] for line in lines[4:8]] == ["1", "2", "3", "4"]
    assert lines[8:] == ["completed all 4 epochs"]
    assert on_screen(stream.getvalue())[:-1] == lines
