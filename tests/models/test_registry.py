"""The registry of architectures: names, near misses, patterns, options, and models of other packages."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import create_model, list_models, model_info, register_model
from cnnlab.models.registry import REGISTRY, ModelInfo, ModelRegistry, plain


class Small(nnx.Module):
    def __init__(self, num_classes: int, width: int, rngs: nnx.Rngs):
        self.num_classes, self.width = num_classes, width
        self.head = nnx.Linear(width, 2, rngs=rngs)


def small(num_classes: int = 10, *, width: int = 8, rngs: nnx.Rngs) -> nnx.Module:
    """A small network.

    This line is not part of the summary.
    """
    return Small(num_classes, width, rngs)


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    with REGISTRY.temporarily():
        yield


def test_the_decorator_without_arguments_registers_under_the_name_of_the_function() -> None:
    assert register_model(small) is small
    assert "small" in list_models()
    info = model_info("small")
    assert (info.name, info.build, info.input_size) == ("small", small, 32)
    assert info.family == "test_registry"
    assert info.summary == "A small network."
    assert info.options == {"num_classes": 10, "width": 8}


def test_the_decorator_with_arguments_takes_name_family_and_input_size() -> None:
    assert register_model(name="tiny", family="toys", input_size=8)(small) is small
    info = model_info("tiny")
    assert (info.name, info.build, info.family, info.input_size) == ("tiny", small, "toys", 8)
    assert "small" not in list_models()


def test_a_builder_without_docstring_has_an_empty_summary() -> None:
    @register_model
    def wordless(num_classes: int = 10, *, rngs: nnx.Rngs) -> nnx.Module:
        return Small(num_classes, 1, rngs)

    assert model_info("wordless").summary == ""


def test_create_model_passes_options_and_rngs() -> None:
    register_model(small)
    model = create_model("small", num_classes=3, width=4, rngs=nnx.Rngs(1))
    assert isinstance(model, Small)
    assert (model.num_classes, model.width) == (3, 4)
    np.testing.assert_array_equal(model.head.kernel[...], Small(3, 4, nnx.Rngs(1)).head.kernel[...])


def test_left_out_rngs_are_those_of_seed_zero() -> None:
    register_model(small)
    model = create_model("small")
    assert isinstance(model, Small)
    np.testing.assert_array_equal(model.head.kernel[...], Small(10, 8, nnx.Rngs(0)).head.kernel[...])


def test_an_option_that_the_model_does_not_have_is_an_error_that_lists_those_it_has() -> None:
    register_model(small)
    with pytest.raises(ValueError, match=r"Expected options of small \(num_classes, width\), got depth, height\."):
        create_model("small", height=1, depth=2, width=3)


def test_a_builder_with_open_options_takes_any_as_the_documentation_says() -> None:
    @register_model
    def open_net(num_classes=10, *, rngs, **options):
        return small(num_classes, rngs=rngs, **options)

    info = model_info("open_net")
    assert info.takes_any_option and info.options == {"num_classes": 10}
    model = create_model("open_net", num_classes=3, width=4)
    assert isinstance(model, Small) and (model.num_classes, model.width) == (3, 4)


def test_an_option_without_default_is_listed_and_has_to_be_given() -> None:
    @register_model
    def demanding(num_classes, *, width, rngs=nnx.Rngs(0)):  # noqa: B008
        return small(num_classes, width=width, rngs=rngs)

    assert model_info("demanding").options == {"num_classes": None, "width": None}
    model = create_model("demanding", num_classes=3, width=4)
    assert isinstance(model, Small) and (model.num_classes, model.width) == (3, 4)
    with pytest.raises(ValueError, match=r"options of demanding without a default, got none for width; do give width="):
        create_model("demanding", num_classes=3)
    with pytest.raises(ValueError, match=r"Expected options of demanding \(num_classes, width\), got rng\."):
        create_model("demanding", num_classes=3, width=4, rng=nnx.Rngs(0))


def test_a_builder_without_rngs_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"builder such as seedless\(num_classes=10, \*, rngs\), got seedless\("
    ) as error:

        @register_model
        def seedless(num_classes=10, *, width=8):
            return small(num_classes, width=width, rngs=nnx.Rngs(0))

    assert str(error.value).endswith("do add rngs, the source of the initial weights.")
    assert "seedless" not in list_models()


def test_options_for_small_images_are_kept_and_have_to_be_options() -> None:
    register_model(small_images={"width": 2})(small)
    assert model_info("small").small_images == {"width": 2}
    assert model_info("resnet18").small_images == {"stem": "cifar"}
    assert model_info("vgg11").small_images == {"classifier": "cifar"}
    assert model_info("lenet").small_images == {} == model_info("resnet20").small_images
    with pytest.raises(ValueError, match=r"small_images to be options of tiny \(num_classes, width\), got stem\."):
        register_model(name="tiny", small_images={"stem": "cifar"})(small)


def test_the_note_of_how_a_network_was_built_has_plain_values_and_builds_it_again() -> None:
    options = {"num_classes": np.int64(3), "dtype": jnp.bfloat16, "hidden": (np.int32(4), 5), "softmax_output": True}
    model = create_model("lenet", **options)
    name, note = model.made_by  # pyright: ignore[reportAttributeAccessIssue]
    expected = {"num_classes": 3, "dtype": "bfloat16", "hidden": [4, 5], "softmax_output": True}
    assert (name, json.loads(note)) == ("lenet", expected)
    again = create_model(name, **json.loads(note))
    assert nnx.graphdef(again) == nnx.graphdef(model)


@pytest.mark.parametrize("dtype", [jnp.float16, np.float16, np.dtype("float16"), jnp.dtype("float16"), "float16"])
def test_a_type_of_numbers_is_noted_by_its_name(dtype: object) -> None:
    assert plain({"dtype": dtype, "array": np.arange(2)}) == {"dtype": "float16", "array": [0, 1]}
    assert plain([Small, None, 0.5]) == [Small, None, 0.5]


def test_a_second_model_of_the_same_name_is_an_error_that_says_who_has_it() -> None:
    register_model(small)
    with pytest.raises(ValueError, match=r"got 'small', which is registered already \(.*test_registry\); do choose"):
        register_model(small)
    with pytest.raises(ValueError, match=r"got 'lenet', .*cnnlab\.models\.lenet"):
        register_model(name="lenet")(small)


def test_an_unknown_name_gets_the_nearest_names() -> None:
    register_model(name="lenets")(small)
    with pytest.raises(ValueError, match="registered model, got 'lenett'; did you mean lenet or lenets[?]"):
        create_model("lenett")
    with pytest.raises(ValueError, match="got 'lenet-s'; did you mean lenets"):
        model_info("lenet-s")


def test_a_name_like_no_other_gets_the_whole_list() -> None:
    with pytest.raises(ValueError, match="got 'qqqq'; one of .*lenet.*"):
        create_model("qqqq")


def test_list_models_is_sorted_and_takes_shell_patterns() -> None:
    for name in ("toy_b", "toy_a", "joy"):
        register_model(name=name)(small)
    assert list_models("toy_*") == ["toy_a", "toy_b"]
    assert list_models("?oy") == ["joy"]
    assert list_models("none*") == []
    assert list_models("*oy*") == ["joy", "toy_a", "toy_b"]
    assert {"lenet", "joy", "toy_a", "toy_b"} <= set(list_models())


def test_list_models_knows_families_and_sorts_numbers_as_numbers() -> None:
    with REGISTRY.temporarily():
        for name in ("zoo101", "zoo18"):
            register_model(small, name=name, family="zoo", paper="A. Author 2026")
        assert list_models(family="zoo") == ["zoo18", "zoo101"]
        assert list_models("*8", family="zoo") == ["zoo18"]
        assert model_info("zoo18").paper == "A. Author 2026"
        with pytest.raises(ValueError, match="Expected a family of models, got 'zo'; did you mean zoo?"):
            list_models(family="zo")


def test_temporarily_forgets_what_was_registered_inside_even_after_an_error() -> None:
    before = list_models()
    with pytest.raises(RuntimeError), REGISTRY.temporarily():
        register_model(small)
        raise RuntimeError
    assert list_models() == before
    register_model(small)  # the name is free again


def test_two_registries_share_nothing() -> None:
    one, other = ModelRegistry(), ModelRegistry()
    one.add(ModelInfo("a", small, "toys", "", 32))
    assert "a" in one.names() and "a" not in other.names()


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package as pip would leave it, that offers one model; the registry has not looked yet."""
    (tmp_path / "cnnlab_plugin_of_a_test.py").write_text(
        "import cnnlab\n"
        "@cnnlab.register_model\n"
        "def plugin_net(num_classes=10, *, rngs):\n"
        '    """From another package."""\n'
        '    return cnnlab.create_model("lenet", num_classes=num_classes, hidden=(8,), rngs=rngs)\n'
    )
    metadata = tmp_path / "cnnlab_plugin_of_a_test-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: cnnlab-plugin-of-a-test\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[cnnlab.models]\nplugin_net = cnnlab_plugin_of_a_test:plugin_net\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(REGISTRY, "_plugins_loaded", False)
    yield "plugin_net"
    sys.modules.pop("cnnlab_plugin_of_a_test", None)


def test_an_installed_package_offers_models_through_its_entry_points(installed_package: str) -> None:
    assert installed_package in list_models()
    info = model_info(installed_package)
    assert (info.family, info.summary) == ("cnnlab_plugin_of_a_test", "From another package.")
    assert nnx.state(create_model(installed_package, num_classes=3))["head"]["bias"].shape == (3,)


def test_a_broken_package_is_a_warning_and_keeps_no_other_from_being_loaded(
    tmp_path: Path, installed_package: str
) -> None:
    broken = tmp_path / "a_broken_plugin-1.0.dist-info"  # found before the other
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: a-broken-plugin\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[cnnlab.models]\nfirst = no_such_module:net\nlast = json:no_such_name\n")
    with pytest.warns(UserWarning, match="Expected models from the entry point") as caught:
        assert installed_package in list_models()
    first, last = sorted(str(warning.message) for warning in caught)
    assert "'first' (no_such_module:net), got ModuleNotFoundError: No module named 'no_such_module'; do update" in first
    assert "'last' (json:no_such_name), got AttributeError: " in last
    assert {warning.filename for warning in caught} == {__file__}
    assert installed_package in list_models()  # and no second warning


def test_models_of_installed_packages_are_not_forgotten_with_the_temporary_ones(installed_package: str) -> None:
    with REGISTRY.temporarily():
        assert installed_package in list_models()
    assert installed_package in list_models()
