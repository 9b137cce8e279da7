"""A recipe is data: it goes through files unchanged, and what cannot be is an error that says what to do."""

import dataclasses
import json
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
    precision="bfloat16",
    optimizer="muon",
    learning_rate=0.1 + 0.2,
    schedule="step",
    warmup_epochs=1.5,
    warmup_start=0.1,
    final_rate=0.01,
    milestones=[2, 5.5],
    step_divisor=3,
    momentum=0.5,
    nesterov=True,
    beta2=0.99,
    muon_learning_rate=0.24,
    muon_momentum=0.6,
    muon_steps=3,
    muon_normalize=True,
    weight_decay=5e-324,
    weight_decays={"*.bias": 1, "head": 0, STRANGE: 1e-22},
    clip_norm=1.0,
    accumulate=2,
    average="lookahead",
    average_decay=0.95**5,
    average_every=5,
    average_ramp=3,
    plateau_patience=1,
    plateau_divisor=2.0,
    minimum_learning_rate=1.0000000000000002e-06,
    convergence_patience=2,
    target_accuracy=2.0,
    target_train_accuracy=0.75,
    noise=1e22,
    flip="alternating",
    crop=4,
    crop_fill="reflect",
    cutout=3,
    mixup=0.2,
    cutmix=1.0,
    pca_colour=0.1,
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
        "precision": "float32",
        "optimizer": "sgd",
        "learning_rate": 1e-2,
        "schedule": "plateau",
        "warmup_epochs": 0.0,
        "warmup_start": 0.0,
        "final_rate": 0.0,
        "milestones": [],
        "step_divisor": 10.0,
        "momentum": 0.9,
        "nesterov": False,
        "beta2": 0.999,
        "muon_learning_rate": 0.02,
        "muon_momentum": 0.95,
        "muon_steps": 5,
        "muon_normalize": False,
        "weight_decay": 0.0,
        "weight_decays": {},
        "clip_norm": 0.0,
        "accumulate": 1,
        "average": "none",
        "average_decay": 0.999,
        "average_every": 1,
        "average_ramp": 0.0,
        "plateau_patience": 5,
        "plateau_divisor": 10.0,
        "minimum_learning_rate": 1e-6,
        "convergence_patience": 10,
        "target_accuracy": 0.999,
        "target_train_accuracy": 2.0,
        "noise": 0.1,
        "flip": "none",
        "crop": 0,
        "crop_fill": "zero",
        "cutout": 0,
        "mixup": 0.0,
        "cutmix": 0.0,
        "pca_colour": 0.0,
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


def test_a_recipe_from_before_there_was_a_training_target_never_stops_at_one(tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({k: v for k, v in Recipe().to_dict().items() if k != "target_train_accuracy"}))
    assert Recipe.read(path) == Recipe() and Recipe().target_train_accuracy > 1


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
    assert {EVERY_FIELD_CHANGED: 1}[EVERY_FIELD_CHANGED.replace()] == 1
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
