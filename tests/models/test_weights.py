"""Weights in safetensors files: names and layouts of PyTorch, errors that name what does not fit, nothing half done."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from cnnlab.models import WeightsError, load_weights, save_weights
from tests.models.small_networks import (
    Arrays,
    arrays,
    expect_equal,
    filled,
    small_alexnet,
    small_cifar_resnet,
    small_lenet,
    small_resnet,
    small_vgg,
    write,
)


def by_hand(ours: Arrays, renamed: dict[str, str]) -> Arrays:
    """PyTorch's arrays of a network, given the names of its modules; without a flattening."""
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var", "bias": "bias"}
    found = {}
    for name, array in ours.items():
        module, _, leaf = name.rpartition(".")
        if array.ndim == 4:
            array = np.moveaxis(array, (3, 2), (0, 1))
        found[f"{renamed.get(module, module)}.{leaves[leaf]}"] = array if array.ndim != 2 else array.T
    return found


@pytest.mark.parametrize(
    ("build", "renamed"),
    [
        (small_resnet, {"head": "fc"}),
        (partial(small_resnet, shortcut="C"), {"head": "fc"}),
        (partial(small_resnet, skip=False), {"head": "fc"}),
        (
            small_resnet,
            {"head": "linear", "layer2.0.downsample.0": "layer2.0.shortcut.0"}
            | {"layer2.0.downsample.1": "layer2.0.shortcut.1"},
        ),
        (partial(small_cifar_resnet, shortcut="B"), {"head": "fc"}),
        (
            partial(small_vgg, classifier="cifar"),
            {"convs.0": "features.0", "norms.0": "features.1", "convs.1": "features.4", "norms.1": "features.5"}
            | {"convs.2": "features.7", "norms.2": "features.8", "head": "classifier"},
        ),
    ],
    ids=[
        "resnet",
        "resnet with projections",
        "plain",
        "resnet for small images",
        "cifar resnet",
        "vgg for small images",
    ],
)
def test_a_file_with_the_names_and_layouts_of_pytorch_fills_the_network(
    tmp_path: Path, build: Any, renamed: dict[str, str]
) -> None:
    expected, model = arrays(filled(build, 1)), filled(build, 2)
    content = by_hand(expected, renamed)
    counters = {re.sub("running_var$", "num_batches_tracked", k): np.array(9) for k in content if "running_var" in k}
    assert counters
    load_weights(model, write(tmp_path / "w.safetensors", content | counters))
    expect_equal(model, expected)


def test_saved_resnet_weights_have_the_names_layouts_and_counters_of_pytorch(tmp_path: Path) -> None:
    model = filled(small_resnet)
    save_weights(model, tmp_path / "w.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    expected = by_hand(arrays(model), {"head": "fc"})
    norms = ["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2", "layer2.0.downsample.1"]
    expected |= {f"{norm}.num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    assert found.keys() == expected.keys()
    assert found["conv1.weight"].shape == (4, 3, 3, 3) and found["fc.weight"].shape == (10, 8)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_the_dense_layer_after_the_flattening_takes_channels_first_in_pytorch(tmp_path: Path) -> None:
    for build, first, side, channels in ((small_vgg, "classifier.0", 7, 5), (small_alexnet, "classifier.1", 6, 6)):
        model = filled(build)
        save_weights(model, tmp_path / "w.safetensors")
        weight = safetensors.numpy.load_file(tmp_path / "w.safetensors")[f"{first}.weight"]
        kernel = arrays(model)["hidden.0.kernel"]
        for c, y, x in ((0, 0, 0), (1, 2, 3), (channels - 1, side - 1, 0), (2, 0, side - 1)):
            theirs, ours = (c * side + y) * side + x, (y * side + x) * channels + c
            np.testing.assert_array_equal(weight[:, theirs], kernel[ours])


def test_vgg_and_alexnet_have_the_names_of_torchvision(tmp_path: Path) -> None:
    places = {
        # convolution, BatchNorm, ReLU; pooling after the first stage and after the second
        small_vgg: "features.0 features.1 features.4 features.5 features.7 features.8 classifier.0 classifier.3 "
        "classifier.6",
        small_alexnet: "features.0 features.3 features.6 features.8 features.10 classifier.1 classifier.4 classifier.6",
    }
    for build, modules in places.items():
        save_weights(filled(build), tmp_path / "w.safetensors")
        found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
        assert {name.rpartition(".")[0] for name in found} == set(modules.split())


def test_vgg_takes_the_names_of_timm_where_dense_layers_are_convolutions(tmp_path: Path) -> None:
    model = filled(small_vgg, 1)
    expected = arrays(model)
    save_weights(model, tmp_path / "w.safetensors")
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    content = {}
    for name, array in safetensors.numpy.load_file(tmp_path / "w.safetensors").items():
        module, _, leaf = name.rpartition(".")
        shape = {"classifier.0.weight": (6, 5, 7, 7), "classifier.3.weight": (7, 6, 1, 1)}.get(name, array.shape)
        content[f"{names.get(module, module)}.{leaf}"] = array.reshape(shape)
    model = filled(small_vgg, 2)
    load_weights(model, write(tmp_path / "timm.safetensors", content))
    expect_equal(model, expected)


def test_weights_of_a_parallel_network_lose_their_prefix(tmp_path: Path) -> None:
    expected, model = arrays(filled(small_resnet, 1)), filled(small_resnet, 2)
    content = {f"module.{name}": array for name, array in by_hand(expected, {"head": "fc"}).items()}
    load_weights(model, write(tmp_path / "w.safetensors", content))
    expect_equal(model, expected)


BUILDS = [small_resnet, small_cifar_resnet, small_vgg, small_alexnet, small_lenet]
BUILDS += [partial(small_alexnet, local_response_norm=True), partial(small_cifar_resnet, squeeze_excite=True)]


@pytest.mark.parametrize("names", ["torch", "own"])
@pytest.mark.parametrize("build", BUILDS)
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, build: Any, names: Any) -> None:
    before, model = filled(build, 1), filled(build, 2)
    save_weights(before, tmp_path / "w.safetensors", names=names)
    load_weights(model, tmp_path / "w.safetensors")
    expect_equal(model, arrays(before))


@pytest.mark.parametrize("build", [small_resnet, small_cifar_resnet])
def test_squeeze_and_excite_that_no_library_has_in_these_blocks_is_saved_under_own_names(
    tmp_path: Path, build: Any
) -> None:
    model = filled(partial(build, squeeze_excite=True))
    save_weights(model, tmp_path / "w.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    expect_equal(model, found)
    assert {"conv1.kernel", "layer1.0.bn1.scale", "layer1.0.conv2.kernel", "head.kernel"} < found.keys()
    assert any(name.startswith("layer1.0.squeeze_excite.") for name in found)


@pytest.mark.parametrize("build", [small_lenet, partial(small_alexnet, local_response_norm=True)])
def test_a_network_without_twin_is_saved_under_its_own_names_in_its_own_layout(tmp_path: Path, build: Any) -> None:
    model = filled(build)
    save_weights(model, tmp_path / "w.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    expect_equal(model, found)
    assert all(name in found for name in ("head.kernel", "hidden.0.bias"))


def test_random_keys_of_dropout_are_no_weights(tmp_path: Path) -> None:
    model = small_alexnet(2, dropout=0.5, rngs=nnx.Rngs(0))
    assert any("rngs" in path for path, _ in nnx.to_flat_state(nnx.state(model)))
    save_weights(model, tmp_path / "w.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
    assert not any("rngs" in name for name in found)
    load_weights(model, tmp_path / "w.safetensors")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=["F16", "BF16", "F64"])
def test_other_floating_point_numbers_become_float32(tmp_path: Path, dtype: Any) -> None:
    content = {name: array.astype(dtype) for name, array in arrays(filled(small_lenet, 1)).items()}
    model = filled(small_lenet, 2)
    load_weights(model, write(tmp_path / "w.safetensors", content))
    assert {array.dtype for array in arrays(model).values()} == {np.dtype(np.float32)}
    expect_equal(model, {name: array.astype(np.float32) for name, array in content.items()})


# What does not fit.


def test_one_error_names_all_that_does_not_fit_and_nothing_is_changed(tmp_path: Path) -> None:
    model = filled(small_resnet, 2)
    before = arrays(model)
    content = by_hand(arrays(filled(small_resnet, 1)), {"head": "fc"})
    for name in [name for name in content if name.startswith("layer2.0.bn")]:
        del content[name]
    content["conv1.weight"] = content["conv1.weight"][:, :1]
    content["extra.weight"] = np.zeros(3, np.float32)
    with pytest.raises(WeightsError) as error:
        load_weights(model, write(tmp_path / "w.safetensors", content))
    text = str(error.value)
    assert re.match(
        r"Expected the weights of this ResNet \(names of torchvision and timm, 32 arrays\), got .*w\.safe", text
    )
    assert "8 missing (layer2.0.bn1.bias, layer2.0.bn1.running_mean, " in text and "and 4 more)" in text
    assert "1 unexpected (extra.weight)" in text
    assert "1 of another shape (conv1.weight [4, 1, 3, 3] for [4, 3, 3, 3])" in text
    assert "do build the network that these weights were trained with" in text and "drop_head" not in text
    assert text.endswith("Nothing was changed.") and "\n" not in text
    expect_equal(model, before)


@pytest.mark.parametrize("build", [small_resnet, small_vgg, small_lenet, small_alexnet])
def test_another_number_of_classes_is_an_error_that_says_drop_head_which_loads_the_rest(
    tmp_path: Path, build: Any
) -> None:
    source, model = filled(build, 1, num_classes=10), filled(build, 2, num_classes=3)
    save_weights(source, tmp_path / "w.safetensors")
    before = arrays(model)
    text = (
        r"2 of another shape \(.*\); do pass drop_head=True to keep the network's own head and load the rest\. Nothing"
    )
    with pytest.raises(WeightsError, match=text):
        load_weights(model, tmp_path / "w.safetensors")
    expect_equal(model, before)

    load_weights(model, tmp_path / "w.safetensors", drop_head=True)
    head = {name: array for name, array in before.items() if name.startswith("head.")}
    assert len(head) == 2
    expect_equal(model, arrays(source) | head)


def test_drop_head_also_fits_a_network_or_a_file_without_head(tmp_path: Path) -> None:
    whole, headless = filled(small_resnet, 1), filled(small_resnet, 2, num_classes=0)
    save_weights(whole, tmp_path / "whole.safetensors")
    with pytest.raises(WeightsError, match=r"2 unexpected \(fc\.bias, fc\.weight\); do pass drop_head=True"):
        load_weights(headless, tmp_path / "whole.safetensors")
    load_weights(headless, tmp_path / "whole.safetensors", drop_head=True)
    body = {name: array for name, array in arrays(whole).items() if not name.startswith("head.")}
    expect_equal(headless, body)

    save_weights(headless, tmp_path / "headless.safetensors")
    other = filled(small_resnet, 3)
    head = {name: array for name, array in arrays(other).items() if name.startswith("head.")}
    with pytest.raises(WeightsError, match=r"2 missing \(fc\.bias, fc\.weight\); do pass drop_head=True"):
        load_weights(other, tmp_path / "headless.safetensors")
    load_weights(other, tmp_path / "headless.safetensors", drop_head=True)
    expect_equal(other, body | head)


def test_numbers_that_are_no_floats_are_an_error_and_nothing_is_changed(tmp_path: Path) -> None:
    model = filled(small_lenet)
    before = arrays(model)
    content = before | {"head.kernel": np.ones_like(before["head.kernel"], np.int8)}
    with pytest.raises(WeightsError, match="numbers of type F64, F32, F16, BF16 .* got I8 for head.kernel; do save"):
        load_weights(model, write(tmp_path / "w.safetensors", content))
    expect_equal(model, before)


@pytest.mark.parametrize("entry", [None, "state_dict", "model"])
def test_the_command_in_the_error_does_convert_the_file(tmp_path: Path, entry: str | None) -> None:
    torch = pytest.importorskip("torch", reason="only PyTorch writes and reads its pickle files")
    expected, model = arrays(filled(small_resnet, 1)), filled(small_resnet, 2)
    content = {k: torch.from_numpy(v.copy()) for k, v in by_hand(expected, {"head": "fc"}).items()}
    content["conv1.weight"] = content["conv1.weight"].transpose(0, 1).contiguous().transpose(0, 1)  # with strides
    torch.save({entry: content, "epoch": 3} if entry else content, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as error:
        load_weights(model, tmp_path / "w.pth")
    (code,) = re.findall('python -c "(.*)"$', str(error.value))
    exec(code, {})
    load_weights(model, tmp_path / "w.safetensors")
    expect_equal(model, expected)


def test_a_missing_file_or_folder_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_weights(filled(small_lenet), tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError):
        save_weights(filled(small_lenet), tmp_path / "none" / "w.safetensors")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "w.safetensors", {"old": np.ones(2)})
    before = path.read_bytes()

    def broken(tensors: Arrays, file: Path, **_: Any) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_weights(filled(small_lenet), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_no_kind_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected names to be torch or own, got 'keras'; do choose one of the two"):
        save_weights(filled(small_lenet), tmp_path / "w.safetensors", names="keras")  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())
