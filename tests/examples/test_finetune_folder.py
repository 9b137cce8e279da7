"""The example of fine-tuning: what it refuses, where its network comes from, and the demonstration as a whole."""

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cnnlab

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "finetune_folder.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(SCRIPT), run_name="example")


def test_a_folder_needs_a_network_to_start_from(example, monkeypatch, capsys):
    for words in (["flowers"], ["flowers", "--from", "runs/x", "--weights", "x.safetensors"]):
        monkeypatch.setattr(sys, "argv", ["finetune_folder.py", *words])
        with pytest.raises(SystemExit, match="2"):
            example["read_arguments"]()
        assert "do give either --from RUN or --weights FILE" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_of_weights_becomes_a_network_that_standardises_as_imagenet_did(example, tmp_path):
    """All but the head is what the file has; grey images of ImageNet's mean become zeros inside."""
    trained = cnnlab.create_model("lenet", num_classes=7)
    trained.conv1.bias[...] += 1
    cnnlab.save_weights(trained, tmp_path / "lenet.safetensors")
    args = argparse.Namespace(run=None, model="lenet", weights=tmp_path / "lenet.safetensors")
    network = example["network_to_start_with"](args)
    assert network.image_shape == (32, 32, 3)
    mean = jnp.broadcast_to(jnp.asarray([0.485, 0.456, 0.406]), (1, 32, 32, 3))
    np.testing.assert_allclose(network.features(mean), trained.features(jnp.zeros((1, 32, 32, 3))), atol=1e-5)
    assert cnnlab.replace_head(network, 3)(mean).shape == (1, 3)


@pytest.fixture
def six_images(tmp_path):
    """A folder of two classes with three small PNG files each."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    return tmp_path / "pets"


def test_six_images_are_enough_to_fine_tune_the_network_of_a_run(example, six_images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    recipe = cnnlab.Recipe(epochs=1, batch_size=2)
    options = {"hidden": [4]}
    cnnlab.fit("mlp", "folder:pets?size=8", recipe, out="base", model_options=options, progress=False)
    start = lambda *words: (  # noqa: E731
        monkeypatch.setattr(sys, "argv", ["finetune_folder.py", "pets", "--from", "base", *words]),
        example["main"](),
    )
    start("--epochs", "1", "--set", "flip=none", "--set", "learning_rates=*:0.1,head:1")
    assert re.search(r"fine-tuned: [\d.]+% of 1 test images", capsys.readouterr().out)
    (folder,) = (tmp_path / "runs").iterdir()
    kept = json.loads((folder / "recipe.json").read_text())["recipe"]
    assert (kept["name"], kept["epochs"], kept["flip"]) == ("finetune", 1, "none")
    assert kept["learning_rates"] == {"*": 0.1, "head": 1.0}
    assert cnnlab.load(folder).classes == ("cat", "dog")
    # What is refused before the run begins leaves no folder behind.
    with pytest.raises(ValueError, match="got 'haed'; did you mean head"):
        start("--set", "freeze=haed")
    assert [*(tmp_path / "runs").iterdir()] == [folder]


@pytest.mark.slow
def test_the_demonstration_beats_training_from_scratch_and_its_run_predicts_files(tmp_path):
    pytest.importorskip("sklearn")

    def run(*words):
        result = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, env=os.environ)
        assert result.returncode == 0, result.stderr
        return result.stdout

    told = run(str(SCRIPT))
    tuned, scratch = (
        float(re.search(rf"{words}[^:]*: ([\d.]+)%", told)[1]) for words in ("fine-tuned", "from scratch")
    )
    assert tuned > scratch and tuned > 80
    folder = re.search(r"cnnlab predict (\S+) IMAGE", told)[1]
    (image,) = [path for path in tmp_path.glob("runs/*/odd-or-even/test/odd/7-000.png")]
    assert run("-m", "cnnlab", "predict", folder, str(image)).startswith(f"{image}: ")
