"""What a recipe may hold: a wrong type, a value out of range and fields that contradict each other are errors."""

import math
import re

import pytest

from cnnlab.training import Recipe, RecipeError, get_recipe


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("epochs", 1.0, "Expected epochs to be of type int, got 1.0."),
        ("epochs", True, "Expected epochs to be of type int, got True."),
        ("epochs", "3", "Expected epochs to be of type int, got '3'."),
        ("epochs", None, "Expected epochs to be of type int, got None."),
        ("learning_rate", "fast", "Expected learning_rate to be of type float, got 'fast'."),
        ("learning_rate", True, "Expected learning_rate to be of type float, got True."),
        ("flip", 1, "Expected flip to be one of none, random, alternating, got 1."),
        ("crop_fill", "edge", "Expected crop_fill to be one of zero, reflect, got 'edge'."),
        ("name", 3, "Expected name to be of type str, got 3."),
        ("order", "random", "Expected order to be one of dataset, permuted, shuffled, got 'random'."),
        ("order", ["dataset"], "Expected order to be one of dataset, permuted, shuffled, got ['dataset']."),
        ("schedule", 3, "Expected schedule to be one of plateau, constant, step, linear, cosine, one-cycle, got 3."),
        ("optimizer", "adam", "Expected optimizer to be one of sgd, adamw, muon, got 'adam'."),
        ("precision", "float16", "Expected precision to be one of float32, bfloat16, got 'float16'."),
        ("average", True, "Expected average to be one of none, ema, lookahead, got True."),
        ("accumulate", 2.0, "Expected accumulate to be of type int, got 2.0."),
        ("muon_normalize", 1, "Expected muon_normalize to be of type bool, got 1."),
        ("milestones", 80, "Expected milestones to be a list of epochs such as [80, 120], got 80."),
        ("milestones", ["80"], "Expected each of milestones to be of type float, got '80'."),
        ("weight_decays", 10.0, 'Expected weight_decays to be a table such as {"head": 10.0}, got 10.0.'),
        ("held_out", "few", "Expected held_out to be of type int, got 'few'."),
        ("freeze", "conv1", 'Expected freeze to be a list of patterns such as ["conv1", "layer1.*"], got \'conv1\'.'),
        ("freeze", ["conv1", 3], 'Expected freeze to be a list of patterns such as ["conv1", "layer1.*"], got '),
        ("freeze", [""], 'Expected freeze to be a list of patterns such as ["conv1", "layer1.*"], got [\'\'].'),
        ("learning_rates", 10.0, 'Expected learning_rates to be a table such as {"head": 10.0}, got 10.0.'),
        ("learning_rates", "ab", "Expected learning_rates to be a table such as {\"head\": 10.0}, got 'ab'."),
        ("learning_rates", ["ab"], "Expected learning_rates to be a table such as {\"head\": 10.0}, got ['ab']."),
        ("learning_rates", {1: 1.0}, 'Expected learning_rates to be a table such as {"head": 10.0}, got {1: 1.0}.'),
        ("learning_rates", {"head": "10"}, "Expected the factor of 'head' to be of type float, got '10'."),
        ("learning_rates", {"head": True}, "Expected the factor of 'head' to be of type float, got True."),
    ],
)
def test_a_wrong_type_is_an_error_that_names_field_and_value(field, value, text):
    with pytest.raises(RecipeError, match=f"^{re.escape(text)}"):
        Recipe(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("epochs", 0, "Expected epochs at least 1, got 0; do change it in recipe 'custom'."),
        ("batch_size", 0, "Expected batch_size at least 1, got 0"),
        ("learning_rate", 0.0, "Expected a positive learning_rate, got 0; do choose one such as 0.01."),
        ("learning_rate", -0.1, "Expected learning_rate from 0 to 1e+06, got -0.1"),
        ("learning_rate", 1e7, "Expected learning_rate from 0 to 1e+06, got 10000000.0"),
        ("learning_rate", math.nan, "Expected learning_rate to be a finite number, got nan."),
        ("momentum", 1.5, "Expected momentum from 0 to 1, got 1.5"),
        ("weight_decay", -1e-9, "Expected weight_decay at least 0, got -1e-09"),
        ("weight_decays", {"head": -1}, "Expected a factor of at least 0 for 'head', got -1; do change weight_decays."),
        (
            "weight_decays",
            [("a", 1.0), ("a", 0)],
            "Expected each pattern of weight_decays once, got 'a' again; do keep",
        ),
        ("warmup_epochs", -1.0, "Expected warmup_epochs at least 0, got -1.0"),
        ("warmup_start", 1.5, "Expected warmup_start from 0 to 1, got 1.5"),
        ("final_rate", -0.1, "Expected final_rate from 0 to 1, got -0.1"),
        ("milestones", [0, 2], "Expected milestones to be epochs that rise from above 0, got [0, 2]."),
        ("milestones", [2, 2], "Expected milestones to be epochs that rise from above 0, got [2, 2]."),
        ("step_divisor", 1, "Expected step_divisor above 1, got 1; do choose one such as 10."),
        ("muon_learning_rate", -1.0, "Expected muon_learning_rate from 0 to 1e+06, got -1.0"),
        ("muon_steps", 0, "Expected muon_steps from 1 to 100, got 0"),
        ("clip_norm", -1.0, "Expected clip_norm at least 0, got -1.0"),
        ("accumulate", 0, "Expected accumulate at least 1, got 0"),
        ("average_decay", 1.1, "Expected average_decay from 0 to 1, got 1.1"),
        ("average_every", 0, "Expected average_every at least 1, got 0"),
        ("plateau_patience", 0, "Expected plateau_patience at least 1, got 0"),
        ("plateau_divisor", 0.5, "Expected plateau_divisor at least 1, got 0.5"),
        ("plateau_divisor", 1, "Expected plateau_divisor above 1, got 1; do choose one such as 10."),
        ("convergence_patience", 0, "Expected convergence_patience at least 1, got 0"),
        ("target_accuracy", math.inf, "Expected target_accuracy to be a finite number, got inf."),
        ("target_train_accuracy", -0.5, "Expected target_train_accuracy at least 0, got -0.5"),
        ("noise", -0.1, "Expected noise at least 0, got -0.1"),
        ("noise", 10**400, "Expected noise to be a finite number, got inf."),
        ("crop", -1, "Expected crop from 0 to 1024, got -1"),
        ("cutout", -1, "Expected cutout from 0 to 1024, got -1"),
        ("mixup", -0.1, "Expected mixup from 0 to 1000, got -0.1"),
        ("cutmix", 1001.0, "Expected cutmix from 0 to 1000, got 1001.0"),
        ("pca_colour", -0.1, "Expected pca_colour at least 0, got -0.1"),
        ("label_smoothing", 1.1, "Expected label_smoothing from 0 to 1, got 1.1"),
        ("held_out", -1, "Expected held_out at least 0, got -1"),
        ("held_out", 1.5, "Expected held_out to be a whole number of images or a share below 1, got 1.5."),
        ("held_out", -0.1, "Expected held_out to be a whole number of images or a share below 1, got -0.1."),
        ("held_out", math.nan, "Expected held_out to be a whole number of images or a share below 1, got nan."),
        ("learning_rates", {"head": 0}, "Expected a positive factor for 'head', got 0; do put it into freeze."),
        (
            "learning_rates",
            [("a", 1.0), ("*", 0.1), ("a", 2.0)],
            "Expected each pattern of learning_rates once, got 'a' ",
        ),
        ("learning_rates", {"head": -1.0}, "Expected a positive factor for 'head', got -1; do put it into freeze."),
        ("learning_rates", {"head": math.inf}, "Expected the factor of 'head' to be a finite number, got inf."),
    ],
)
def test_an_impossible_value_is_an_error_that_names_the_possible_ones(field, value, text):
    with pytest.raises(RecipeError, match=f"^{re.escape(text)}"):
        Recipe(**{field: value})


def test_a_warm_up_as_long_as_the_run_is_an_error():
    with pytest.raises(RecipeError, match="Expected warmup_epochs below the 2 epochs, got 2; do lower it"):
        Recipe(schedule="cosine", epochs=2, warmup_epochs=2)


def test_a_warm_up_under_the_plateau_rule_is_an_error():
    text = 'Expected no warmup_epochs with schedule = "plateau", got 1.5; do set warmup_epochs = 0, or another'
    with pytest.raises(RecipeError, match=text):
        Recipe(warmup_epochs=1.5)
    with pytest.raises(RecipeError, match="Expected no warmup_epochs"):
        get_recipe("lenet-modern").replace(schedule="plateau")
    assert get_recipe("lenet-modern").replace(schedule="plateau", warmup_epochs=0).schedule == "plateau"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"schedule": "one-cycle"},
            'Expected warmup_epochs with schedule = "one-cycle", got 0; do set it, e.g. to 0.3',
        ),
        ({"schedule": "step"}, 'Expected milestones with schedule = "step" and only there, got [] with "step"; do set'),
        (
            {"milestones": [3]},
            'Expected milestones with schedule = "step" and only there, got [3.0] with "plateau"; do',
        ),
        (
            {"schedule": "step", "milestones": [1, 3], "warmup_epochs": 1},
            "Expected milestones after the 1 epochs of warm-up, got 1; do lower warmup_epochs, or leave that",
        ),
        (
            {"schedule": "step", "milestones": [80, 120], "epochs": 120},
            "Expected milestones below the 120 epochs, got 120; do raise epochs, or leave that milestone out.",
        ),
        (
            {"optimizer": "adamw", "nesterov": True},
            'Expected nesterov with "sgd" or "muon", got it with "adamw"; do set nesterov = false.',
        ),
        ({"optimizer": "adamw", "momentum": 1}, 'Expected momentum below 1 with "adamw", got 1; do choose one such as'),
        ({"optimizer": "adamw", "beta2": 1}, 'Expected beta2 below 1 with "adamw", got 1; do choose one such as 0.9.'),
        (
            {"muon_normalize": True, "schedule": "linear"},
            'Expected muon_normalize with optimizer = "muon" and a schedule other than "plateau", '
            'got "sgd" and "linear"; do set muon_normalize = false.',
        ),
        (
            {"muon_normalize": True, "optimizer": "muon"},
            'Expected muon_normalize with optimizer = "muon" and a schedule other than "plateau", '
            'got "muon" and "plateau"; do set muon_normalize = false.',
        ),
        ({"weight_decays": {"head": 0}}, "Expected weight_decay with weight_decays, got 0; do set it, e.g. to 5e-4."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_fields_that_contradict_each_other_are_an_error(fields, text):
    with pytest.raises(RecipeError, match=f"^{re.escape(text)}"):
        Recipe(**fields)


def test_a_milestone_may_stand_just_before_the_end():
    assert Recipe(schedule="step", milestones=[80, 119.5], epochs=120).milestones == (80, 119.5)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "sgd", "beta2": 0.9, "muon_steps": 3, "average_decay": 0.9},
        {"schedule": "constant", "final_rate": 0.1, "plateau_patience": 3, "step_divisor": 2.0},
    ],
    ids="-".join,
)
def test_a_number_that_is_not_looked_at_is_no_error(fields):
    assert Recipe(**fields).replace(epochs=3).to_dict().items() >= fields.items()


def test_nesterov_without_momentum_is_an_error():
    with pytest.raises(RecipeError, match="Expected momentum with nesterov, got 0; do set momentum, or nesterov = f"):
        Recipe(nesterov=True, momentum=0.0)
    assert Recipe(nesterov=False, momentum=0.0).momentum == 0


def test_yes_and_no_of_older_files_are_flips_at_random_and_none(tmp_path):
    for text, flip in (("true", "random"), ("false", "none")):
        path = tmp_path / "old.toml"
        path.write_text(f"flip = {text}\n")
        assert Recipe.read(path) == Recipe(flip=flip)
