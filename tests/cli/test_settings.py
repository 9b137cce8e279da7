"""What `--set` and `--model-set` accept, and what they say of the rest."""

import pytest

from cnnlab.cli import main
from cnnlab.cli.settings import model_options, recipe_changes
from cnnlab.training import get_recipe


def test_values_are_read_by_the_types_of_the_recipe():
    changes = recipe_changes(["epochs=3", "noise=0", "flip=yes", "nesterov=FALSE", "order=permuted", "batch-size = 8"])
    expected = {"epochs": 3, "noise": 0.0, "flip": "random", "nesterov": False, "order": "permuted", "batch_size": 8}
    assert changes == expected
    assert {key: type(value) for key, value in changes.items()} == {key: type(v) for key, v in expected.items()}
    assert get_recipe("thesis").replace(**changes).batch_size == 8


def test_patterns_factors_and_shares_are_written_with_commas_and_colons():
    changes = recipe_changes(["freeze=conv1*, bn1*", "learning_rates=*:0.1,layer[34].*:0.5,head*:1", "held-out=0.1"])
    assert changes == {
        "freeze": ["conv1*", "bn1*"],
        "learning_rates": {"*": 0.1, "layer[34].*": 0.5, "head*": 1.0},
        "held_out": 0.1,
    }
    recipe = get_recipe("finetune").replace(**changes)
    assert recipe.freeze == ("conv1*", "bn1*")
    assert recipe.learning_rates == (("*", 0.1), ("layer[34].*", 0.5), ("head*", 1.0))
    nothing = recipe_changes(["freeze=", "learning-rates=", "held_out=20"])
    assert nothing == {"freeze": [], "learning_rates": {}, "held_out": 20} and type(nothing["held_out"]) is int


@pytest.mark.parametrize(
    ("word", "flip"),
    [("none", "none"), ("random", "random"), ("Alternating", "alternating"), ("no", "none"), ("YES", "random")],
)
def test_flip_is_one_of_three_words_and_yes_and_no_mean_two_of_them(word, flip):
    assert recipe_changes([f"flip={word}"]) == {"flip": flip}
    assert get_recipe("thesis").replace(flip=flip).flip == flip


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("epoch=3", "Expected a field of a recipe, got 'epoch'; did you mean epochs?"),
        ("epochs=1.5", "Expected a whole number for epochs, got '1.5'; do change --set epochs=1.5."),
        ("noise=much", "Expected a number for noise, got 'much'; do change --set noise=much."),
        ("flip=perhaps", "Expected none, random or alternating for flip, got 'perhaps'; do change --set flip=perhaps."),
        ("nesterov=perhaps", "Expected yes or no for nesterov, got 'perhaps'; do change --set nesterov=perhaps."),
        ("order=backwards", "Expected order to be one of dataset, permuted, shuffled, got 'backwards'."),
        ("epochs=0", "Expected epochs at least 1, got 0; do change it in recipe 'thesis'."),
        ("epochs", "Expected KEY=VALUE, got 'epochs'; do write --set epochs=3."),
        (
            "learning_rates=head",
            "Expected PATTERN:FACTOR, such as head:10, for learning_rates, got 'head'; "
            "do change --set learning_rates=head.",
        ),
        (
            "held_out=some",
            "Expected a number of images or a share for held_out, got 'some'; do change --set held_out=some.",
        ),
        ("learning_rates=head:0", "Expected a positive factor for 'head', got 0; do put it into freeze."),
        (
            "freeze=conv9*",
            "Expected every pattern of freeze to match a parameter, got 'conv9*'; did you mean conv2 or conv1?",
        ),
        ("=3", "Expected KEY=VALUE, got '=3'; do write --set epochs=3."),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(setting, text, capsys):
    assert main(["train", "--set", setting]) == 2
    assert capsys.readouterr().err == f"cnnlab: {text}\n"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden=120,256,84", [120, 256, 84]),
        ("hidden=[120, 256]", [120, 256]),
        ("hidden=120", [120]),
        ("softmax-output=true", True),
        ("image_size=28", 28),
        ("init=he_normal", "he_normal"),
        ("dtype=bfloat16", "bfloat16"),
    ],
)
def test_model_options_are_json_or_numbers_with_commas_or_text(setting, value):
    ((_, read),) = model_options("lenet", [setting]).items()
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("hiden=120", "Expected an option of lenet, got 'hiden'; did you mean hidden?"),
        ("hidden=a,b", "Expected hidden to be such as 400,120,256,84, got 'a,b'; do change --model-set hidden=a,b."),
        ("image_size=big", "Expected image_size to be such as 32, got 'big'; do change --model-set image_size=big."),
        ("init=3", "Expected init to be such as glorot_uniform, got '3'; do change --model-set init=3."),
        ("softmax_output=1", "Expected softmax_output to be such as False, got '1'; do change --model-set "),
        ("hidden", "Expected KEY=VALUE, got 'hidden'; do write --model-set hidden=120,256,84."),
    ],
)
def test_a_model_option_that_cannot_be_is_refused_in_one_line(setting, text, capsys):
    assert main(["train", "--model-set", setting]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cnnlab: {text}")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--model", "lenett"], "Expected the name of a registered model, got 'lenett'; did you mean lenet?"),
        (["--recipe", "thesys"], "Expected the name of a recipe or a .toml or .json file, got 'thesys'; did you mean"),
        (["--recipe", "mine.toml"], "Expected a recipe file at mine.toml, got: No such file or directory."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(args, text, capsys):
    assert main(["train", *args]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
