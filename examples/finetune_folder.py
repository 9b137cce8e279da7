"""Fine-tune a network on a folder of images: one sub-folder per class.

    python examples/finetune_folder.py                                     # see it work, on handwritten digits
    python examples/finetune_folder.py flowers --from runs/cifar10         # a network that cnnlab trained
    python examples/finetune_folder.py flowers --model resnet34 --weights resnet34.safetensors --freeze conv1 bn1 layer1
    python examples/finetune_folder.py letters --from runs/cifar10 --set flip=none --set learning_rates=*:0.1,head:1
    cnnlab predict runs/finetuned photo.jpg                                # what came out, from any process

Without a folder a LeNet first learns scikit-learn's ten digits. Then it is fine-tuned to a new question, odd or even,
on a folder of twenty PNG files; and a fresh network of its kind learns that from the same files in as many epochs.
Time: about a minute on one busy core of a 2.8 GHz Xeon, most of it compilation.
Expect: about 88 % of 500 test images after fine-tuning, 76 % from scratch; the last lines print both.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flax import nnx
from PIL import Image

import cnnlab
from cnnlab.cli.settings import recipe_changes
from cnnlab.experiment import claim_folder, give_back_folder
from cnnlab.layers import Standardized
from cnnlab.training import RunFolderError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # how PyTorch's networks want their images: mean, std


def main() -> None:
    """Find the network and the images, fine-tune, and say how to use what came out."""
    args = read_arguments()
    recipe = cnnlab.get_recipe("finetune")
    if args.folder is None:
        network, folder = digits_to_start_with()
        changes = {"freeze": ["conv1", "conv2"], "learning_rate": 0.03, "batch_size": 10, "held_out": 0.2}
        recipe = recipe.replace(flip="none", crop=1, **changes)
    else:
        network, folder = network_to_start_with(args), args.folder
    if args.freeze is not None:
        recipe = recipe.replace(freeze=args.freeze)
    if args.epochs is not None:  # in a short run the rate rises for a twentieth of it, as in the recipe
        recipe = recipe.replace(epochs=args.epochs, warmup_epochs=min(recipe.warmup_epochs, args.epochs / 20))
    recipe = recipe.replace(**recipe_changes(args.set))

    height, width, channels = network.image_shape
    data = f"folder:{folder}?size={height}x{width}&channels={channels}"
    classes = cnnlab.load_dataset(data).num_classes
    with run_folder(args.out, "finetuned", data, recipe.name) as out:
        run = cnnlab.fit(cnnlab.replace_head(network, classes), data, recipe, out=out)
    if run.interrupted:
        sys.exit(130)
    print(f"\nfine-tuned: {run.evaluation.accuracy:.2%} of {run.evaluation.images} test images")
    if args.folder is None:
        print(f"from scratch, the same epochs: {from_scratch(network, data, recipe):.2%}")
    print(f"report: {run.folder / 'report.html'}\nuse it: cnnlab predict {run.folder} IMAGE")


@contextmanager
def run_folder(out: Path | None, *words: str) -> Iterator[Path]:
    """The folder of a run: the one asked for, or a new one in runs/, which goes again when the run never begins."""
    folder = out or claim_folder(*words)
    try:
        yield folder
    except BaseException:
        if out is None:
            give_back_folder(folder)
        raise


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="FOLDER/CLASS/*.png, or FOLDER/{train,test}/CLASS/*.png")
    parser.add_argument("--from", dest="run", type=Path, help="start from the best network of this run")
    parser.add_argument("--model", default="resnet34", help="with --weights: the architecture (resnet34)")
    parser.add_argument("--weights", type=Path, help="start from this safetensors file of ImageNet's weights")
    parser.add_argument("--freeze", nargs="*", metavar="PATTERN", help="what stays as it is, e.g. conv1 'layer[12]'")
    parser.add_argument("--epochs", type=int, help="passes over the images (recipe: 20)")
    changes = "change a field of the recipe, e.g. flip=none; may be given again"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=changes)
    parser.add_argument("--out", type=Path, help="the run folder (by default a new one in runs/)")
    args = parser.parse_args()
    if args.folder is not None and (args.run is None) == (args.weights is None):
        parser.error("Expected a network to start from; do give either --from RUN or --weights FILE.")
    return args


def network_to_start_with(args: argparse.Namespace) -> nnx.Module:
    """Load the network of a run, or a file of weights into a new network."""
    if args.run is not None:
        return cnnlab.load(args.run)
    side = cnnlab.model_info(args.model).input_size
    network = cnnlab.create_model(args.model)
    cnnlab.load_weights(network, args.weights, drop_head=True)
    network = Standardized(network, *IMAGENET)
    network.image_shape = (side, side, 3)
    return network


def digits_to_start_with() -> tuple[nnx.Module, Path]:
    """Train a LeNet on the ten digits, write a folder of odd and even ones, and return the network and the folder."""
    data = cnnlab.load_dataset("digits?size=16")
    recipe = cnnlab.get_recipe("lenet-modern").replace(epochs=15, flip="none", crop=1, held_out=0.1)
    with run_folder(None, "lenet", "digits", "base") as out:
        run = cnnlab.fit("lenet", data, recipe, model_options={"hidden": [64]}, out=out)
    print(f"\nall digits: {run.evaluation.accuracy:.2%} of {run.evaluation.images} test images\n")

    folder = run.folder / "odd-or-even"
    for name, split, most in (("train", data.train, 2), ("test", data.test, None)):  # two training images of each digit
        for digit in range(10):
            place = folder / name / ("odd" if digit % 2 else "even")
            place.mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(split.images[split.labels == digit][:most]):
                Image.fromarray(image[..., 0]).save(place / f"{digit}-{i:03d}.png")
    return cnnlab.load(run.folder), folder


def from_scratch(network: nnx.Module, data: str, recipe: cnnlab.Recipe) -> float:
    """Train the same architecture from fresh weights for as many epochs; return its accuracy on the test images."""
    name, options = network.network.made_by
    options = {key: value for key, value in json.loads(options).items() if key != "num_classes"}
    recipe = recipe.replace(name="from-scratch", freeze=[], standardize=True)
    return cnnlab.fit(name, data, recipe, model_options=options, progress=False).evaluation.accuracy


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, cnnlab.DatasetError, RunFolderError) as error:
        sys.exit(f"finetune_folder.py: {error}")
