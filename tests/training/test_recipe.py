"""A recipe is data: it goes through files unchanged, and what cannot be is an error that says what to do."""

import dataclasses
import json
import math
import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab.training import Recipe, RecipeError, get_recipe, list_recipes

STRANGE = 'perché "so", \\n ist nicht\n\t\r\b\f\x00\x1f\x7f\u0085\u2028 中文 🙂 [x] = # \'\'\' """'

EVERY_FIELD_CHANGED = Recipe(
    name="öther",
    source=STRANGE,
    result="62.5 % ± 0.3",
    epochs=7,
    batch_size=5,
    order="permuted",
    last_batch="drop",
    learning_rate=0.1 + 0.2,
    schedule="cosine",
    warmup_epochs=1.5,
    momentum=0.5,
    nesterov=True,
    weight_decay=5e-324,
    plateau_patience=1,
    plateau_divisor=2.0,
    minimum_learning_rate=1.0000000000000002e-06,
    convergence_patience=2,
    target_accuracy=2.0,
    noise=1e22,
    flip=True,
    crop=4,
    standardize=True,
    label_smoothing=0.1,
    held_out=500,
    freeze=["conv1*", "layer[12].*", STRANGE],
    learning_rates={"*": 0.1, "head*": 10, STRANGE: 1e-22},
)


def test_the_recipe_with_every_field_changed_changes_every_field():
    defaults, changed = Recipe().to_dict(), EVERY_FIELD_CHANGED.to_dict()
    assert [name for name in defaults if defaults[name] == changed[name]] == []


def test_the_defaults_are_the_thesis_rule_with_shuffling_and_without_noise():
    thesis = get_recipe("thesis").to_dict()
    different = {name for name, value in Recipe().to_dict().items() if value != thesis[name]}
    assert different == {"name", "source", "result", "order", "noise"}
    assert (Recipe().order, Recipe().noise) == ("shuffled", 0.0)


def test_the_thesis_recipe_is_the_table_of_the_thesis_field_by_field():
    got = get_recipe("thesis").to_dict()
    for words in ("name", "source", "result"):
        assert got.pop(words)
    assert got == {
        "epochs": 100,
        "batch_size": 32,
        "order": "dataset",
        "last_batch": "keep",
        "learning_rate": 1e-2,
        "schedule": "plateau",
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
        "plateau_patience": 5,
        "plateau_divisor": 10.0,
        "minimum_learning_rate": 1e-6,
        "convergence_patience": 10,
        "target_accuracy": 0.999,
        "noise": 0.1,
        "flip": False,
        "crop": 0,
        "standardize": False,
        "label_smoothing": 0.0,
        "held_out": 0,
        "freeze": [],
        "learning_rates": {},
    }


def test_the_held_out_thesis_differs_only_in_what_steers():
    thesis, honest = get_recipe("thesis").to_dict(), get_recipe("thesis-held-out").to_dict()
    assert {k for k in thesis if thesis[k] != honest[k]} == {"name", "source", "result", "held_out"}
    assert honest["held_out"] == 5000


def test_every_named_recipe_says_where_it_comes_from_and_what_it_reaches():
    recipes = list_recipes()
    names = [recipe.name for recipe in recipes]
    assert len(set(names)) == len(names) and {"thesis", "thesis-held-out", "lenet-modern"} <= set(names)
    for recipe in recipes:
        assert recipe.source and recipe.result
        assert get_recipe(recipe.name) is recipe


@pytest.mark.parametrize("suffix", [".toml", ".json"])
@pytest.mark.parametrize("recipe", [Recipe(), EVERY_FIELD_CHANGED, *list_recipes()], ids=lambda r: r.name)
def test_every_field_comes_back_from_a_file(tmp_path, recipe, suffix):
    path = tmp_path / f"recipe{suffix}"
    recipe.write(path)
    for back in (Recipe.read(path), Recipe.read(str(path)), get_recipe(path), get_recipe(str(path))):
        assert back == recipe
        assert repr(back.to_dict()) == repr(recipe.to_dict())  # 1 and 1.0 are equal, their repr is not
    read = tomllib.loads if suffix == ".toml" else json.loads
    assert list(read(path.read_text(encoding="utf-8"))) == [f.name for f in dataclasses.fields(Recipe)]


@settings(deadline=None, max_examples=150)
@given(text=st.text(st.characters(exclude_categories=["Cs"])), rate=st.floats(0, 1e6, exclude_min=True))
def test_any_text_and_any_rate_come_back_from_toml(tmp_path_factory, text, rate):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    recipe = Recipe(source=text, learning_rate=rate)
    recipe.write(path)
    assert Recipe.read(path) == recipe


def test_a_file_need_only_say_what_differs(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text("epochs = 3  # a comment\nlearning_rate = 1\n")
    recipe = get_recipe(path)
    assert recipe == Recipe(epochs=3, learning_rate=1.0)
    assert type(recipe.learning_rate) is float


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("epoch", "got 'epoch'; did you mean epochs?"),
        ("lerning_rate", "got 'lerning_rate'; did you mean learning_rate?"),
        ("zzz", "got 'zzz'; the fields are name, source, result, epochs, "),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_name(tmp_path, key, text):
    path = tmp_path / "wrong.toml"
    path.write_text(f"{key} = 3\n")
    with pytest.raises(RecipeError, match=re.escape(f"{path}: Expected a field of a recipe, {text}")):
        Recipe.read(path)
    for build in (lambda: Recipe.from_dict({key: 3}), lambda: Recipe().replace(**{key: 3})):
        with pytest.raises(RecipeError, match=re.escape(f"Expected a field of a recipe, {text}")):
            build()


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("epochs", 1.0, "Expected epochs to be of type int, got 1.0."),
        ("epochs", True, "Expected epochs to be of type int, got True."),
        ("epochs", "3", "Expected epochs to be of type int, got '3'."),
        ("epochs", None, "Expected epochs to be of type int, got None."),
        ("learning_rate", "fast", "Expected learning_rate to be of type float, got 'fast'."),
        ("learning_rate", True, "Expected learning_rate to be of type float, got True."),
        ("flip", 1, "Expected flip to be of type bool, got 1."),
        ("name", 3, "Expected name to be of type str, got 3."),
        ("order", "random", "Expected order to be one of dataset, permuted, shuffled, got 'random'."),
        ("order", ["dataset"], "Expected order to be one of dataset, permuted, shuffled, got ['dataset']."),
        ("schedule", 3, "Expected schedule to be one of plateau, constant, cosine, got 3."),
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
        ("plateau_patience", 0, "Expected plateau_patience at least 1, got 0"),
        ("plateau_divisor", 0.5, "Expected plateau_divisor at least 1, got 0.5"),
        ("plateau_divisor", 1, "Expected plateau_divisor above 1, got 1; do choose one such as 10."),
        ("convergence_patience", 0, "Expected convergence_patience at least 1, got 0"),
        ("target_accuracy", math.inf, "Expected target_accuracy to be a finite number, got inf."),
        ("noise", -0.1, "Expected noise at least 0, got -0.1"),
        ("noise", 10**400, "Expected noise to be a finite number, got inf."),
        ("crop", -1, "Expected crop from 0 to 1024, got -1"),
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


@pytest.mark.parametrize("schedule", ["plateau", "constant"])
def test_a_warm_up_that_would_be_ignored_is_an_error(schedule):
    text = f'Expected warmup_epochs only with schedule = "cosine", got 1.5 with "{schedule}"; do set warmup_epochs = 0'
    with pytest.raises(RecipeError, match=text):
        Recipe(schedule=schedule, warmup_epochs=1.5)
    with pytest.raises(RecipeError, match="only with schedule"):
        get_recipe("lenet-modern").replace(schedule=schedule)
    assert get_recipe("lenet-modern").replace(schedule=schedule, warmup_epochs=0).schedule == schedule


def test_nesterov_without_momentum_is_an_error():
    with pytest.raises(RecipeError, match="Expected momentum with nesterov, got 0; do set momentum, or nesterov = f"):
        Recipe(nesterov=True, momentum=0.0)
    assert Recipe(nesterov=False, momentum=0.0).momentum == 0


def test_replace_gives_a_checked_copy_and_leaves_the_original():
    recipe = get_recipe("thesis")
    short = recipe.replace(epochs=3, learning_rate=1)
    assert (short.epochs, short.learning_rate, recipe.epochs, recipe.learning_rate) == (3, 1.0, 100, 0.01)
    assert short.replace(epochs=100, learning_rate=0.01) == recipe
    with pytest.raises(RecipeError, match="Expected epochs at least 1, got -1; do change it in recipe 'thesis'"):
        recipe.replace(epochs=-1)


def test_a_recipe_cannot_be_changed_and_can_be_a_key():
    recipe = Recipe()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3
    assert {recipe: 1}[Recipe()] == 1
    frozen = Recipe(freeze=["conv1"], learning_rates={"*": 0.1, "head": 1})
    assert {frozen: 1}[Recipe(freeze=("conv1",), learning_rates=[("*", 0.1), ["head", 1.0]])] == 1
    assert frozen != Recipe(
        freeze=["conv1"], learning_rates={"head": 1, "*": 0.1}
    )  # the last match counts: order matters


def test_freezing_and_rates_stand_in_toml_as_a_person_would_write_them(tmp_path):
    path = tmp_path / "finetune.toml"
    lines = 'held_out = 0.1\nfreeze = ["conv1*", "bn1*"]\nlearning_rates = {"*" = 0.1, "head*" = 1.0}\n'
    path.write_text(lines)
    recipe = Recipe.read(path)
    assert recipe.to_dict()["freeze"] == ["conv1*", "bn1*"]
    assert [*recipe.to_dict()["learning_rates"].items()] == [("*", 0.1), ("head*", 1.0)]
    recipe.write(path)
    assert path.read_text().endswith(lines)


def test_an_unknown_name_lists_near_ones_or_all():
    with pytest.raises(RecipeError, match="a .toml or .json file, got 'thesis-heldout'; did you mean thesis-held-out"):
        get_recipe("thesis-heldout")
    with pytest.raises(RecipeError, match="got '123'; one of thesis, thesis-held-out, lenet-modern"):
        get_recipe("123")


def test_a_recipe_is_its_own_name():
    assert get_recipe(EVERY_FIELD_CHANGED) is EVERY_FIELD_CHANGED


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.toml", None, "Expected a recipe file at {path}, got: No such file or directory."),
        ("torn.toml", b"epochs = ", "{path}: "),
        ("torn.json", b'{"epochs": 3', "{path}: Expecting"),
        ("list.json", b"[1]", "{path}: Expected a table of fields, got list."),
        ("latin.toml", b"name = '\xe9'", "{path}: 'utf-8' codec"),
        ("date.toml", b"epochs = 2024-01-01", "{path}: Expected epochs to be of type int, got datetime.date"),
        ("infinite.toml", b"noise = inf", "{path}: Expected noise to be a finite number, got inf."),
        ("zero.json", b'{"epochs": 0}', "{path}: Expected epochs at least 1, got 0"),
        ("deep.json", b"[" * 100_000, "{path}: Expected a table of fields, got one nested too deeply."),
        ("deep.toml", b"a = " + b"[" * 100_000, "{path}: "),
    ],
)
def test_a_file_that_is_no_recipe_is_an_error_that_names_it(tmp_path, name, content, text):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=re.escape(text.format(path=path))) as caught:
        get_recipe(path)
    assert "\n" not in str(caught.value)
