"""The registry of architectures: names, near misses, patterns, options, and models of other packages."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from cnnlab.models import create_model, list_models, model_info, register_model
from cnnlab.models.registry import REGISTRY, ModelInfo, ModelRegistry


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


def test_models_of_installed_packages_are_not_forgotten_with_the_temporary_ones(installed_package: str) -> None:
    with REGISTRY.temporarily():
        assert installed_package in list_models()
    assert installed_package in list_models()
