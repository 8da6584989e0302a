"""``deploykit zoo``: list, train, measure and export the example families; draw example data."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.cli.arguments import positive, seed
from deploykit.errors import EXIT_OK, SourceError, UserError

#: What `deploykit --help` says of it.
SUMMARY = "train and evaluate the small models of the examples"

if TYPE_CHECKING:
    from deploykit.accuracy.labelled_images import LabelledImages
    from deploykit_zoo.recipes import TrainingRecipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of ``deploykit zoo``."""
    commands = parser.add_subparsers(dest="zoo_command", metavar="COMMAND", required=True)

    commands.add_parser("list", help="the families that can be trained")

    train = commands.add_parser("train", help="train families on Fashion-MNIST, on the CPU")
    train.add_argument("family", nargs="?", metavar="FAMILY", help="one that 'zoo list' lists")
    train.add_argument("--all", action="store_true", help="every family, one after the other")
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="the checkpoint; with --all a folder, where each is called FAMILY.pt",
    )
    _add_data(train, "folder with the four IDX files")
    train.add_argument("--epochs", type=positive, metavar="N", help="default: the recipe's")
    train.add_argument("--seed", type=seed, default=0, metavar="N", help="default: 0")

    evaluate = commands.add_parser("evaluate", help="measure the top-1 accuracy of a checkpoint")
    evaluate.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _add_data(evaluate, "folder with IDX files, whose test split is used, or a sample (.npz)")

    export = commands.add_parser("export", help="write a checkpoint's network as .onnx or .pt2")
    export.add_argument(
        "source", metavar="FAMILY|CHECKPOINT", help="a family, or a file that 'zoo train' wrote"
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help=".onnx or .pt2")
    export.add_argument(
        "--checkpoints",
        type=Path,
        default=Path("examples/checkpoints"),
        metavar="DIR",
        help="where FAMILY.pt is looked for; default: %(default)s",
    )

    sample = commands.add_parser("sample", help="draw a small sample for calibration and accuracy")
    sample.add_argument("--out", type=Path, required=True, metavar="FILE", help="an .npz")
    _add_data(sample, "folder with the four IDX files")


def run(args: argparse.Namespace) -> int:
    """Run the sub-command that was chosen, and return the exit code.

    Raises:
        DeploykitError: see `deploykit.errors`.
    """
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list,
        "train": _train,
        "evaluate": _evaluate,
        "export": _export,
        "sample": _sample,
    }
    commands[args.zoo_command](args)
    return EXIT_OK


def _add_data(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help=f"{what}; default: where the package dataset-fashion-mnist has them",
    )


def _list(args: argparse.Namespace) -> None:
    from deploykit_zoo.recipes import RECIPES

    del args
    for family, recipe in sorted(RECIPES.items()):
        height, width = recipe.preprocess.size
        shape = f"{recipe.preprocess.channels}x{height}x{width}"
        print(f"{family:20} {recipe.arch:32} {shape:10} {recipe.epochs:2} epochs")


def _train(args: argparse.Namespace) -> None:
    from deploykit.accuracy.labelled_images import FASHION_MNIST_FOLDER, read_idx_folder
    from deploykit_zoo.recipes import RECIPES, find_recipe

    if args.all == (args.family is not None):
        raise UserError(
            "both a family and --all" if args.all else "neither a family nor --all",
            expected="one of them: deploykit zoo train FAMILY --out FILE.pt, "
            "or deploykit zoo train --all --out DIR",
        )
    families = sorted(RECIPES) if args.all else [args.family]
    recipes = [find_recipe(family) for family in families]
    folder = args.data or FASHION_MNIST_FOLDER
    data = read_idx_folder(folder, "train"), read_idx_folder(folder, "test")
    for recipe in recipes:
        if args.all:
            _train_unless_done(args, recipe, data)
        else:
            _train_one(args, recipe, data, args.out)


def _train_unless_done(
    args: argparse.Namespace, recipe: TrainingRecipe, data: tuple[LabelledImages, LabelledImages]
) -> None:
    """One of all: a run that was interrupted does not train again what it had finished."""
    from deploykit_zoo.train import find_trained

    out = args.out / f"{recipe.family}.pt"
    done = find_trained(recipe, *data, out, seed=args.seed, epochs=args.epochs)
    if done is not None:
        print(f"{recipe.family}: {out} is of this very training: kept", flush=True)
        return
    print(f"{recipe.family}: {out}", flush=True)
    _train_one(args, recipe, data, out)


def _train_one(
    args: argparse.Namespace,
    recipe: TrainingRecipe,
    data: tuple[LabelledImages, LabelledImages],
    out: Path,
) -> None:
    from deploykit_zoo.train import train

    command = _train_command(args, recipe.family, out)
    train(recipe, *data, out, seed=args.seed, epochs=args.epochs, command=command, say=_say)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")


def _train_command(args: argparse.Namespace, family: str, out: Path) -> str:
    words = ["deploykit", "zoo", "train", family, "--out", str(out)]
    if args.data is not None:
        words += ["--data", str(args.data)]
    if args.epochs is not None:
        words += ["--epochs", str(args.epochs)]
    if args.seed != 0:
        words += ["--seed", str(args.seed)]
    return shlex.join(words)


def _evaluate(args: argparse.Namespace) -> None:
    from deploykit.accuracy.labelled_images import FASHION_MNIST_FOLDER, read_labelled_images
    from deploykit.accuracy.top1 import check_classes, top1
    from deploykit_zoo.checkpoint import read_checkpoint
    from deploykit_zoo.networks import network_of_checkpoint, torch_predictor

    checkpoint = read_checkpoint(args.checkpoint)
    network = network_of_checkpoint(checkpoint, str(args.checkpoint))
    data = read_labelled_images(args.data or FASHION_MNIST_FOLDER)
    check_classes(checkpoint.labels, data)
    measured = top1(torch_predictor(network), data, checkpoint.preprocess)
    print(f"top-1 {measured.accuracy:.2%} ({measured.correct} of {measured.total} images)")


def _export(args: argparse.Namespace) -> None:
    from deploykit_zoo.export import export_checkpoint
    from deploykit_zoo.recipes import find_recipe

    path = Path(args.source)
    if not path.exists() and not path.suffix:
        path = _checkpoint_of(find_recipe(args.source), args.checkpoints)
    export_checkpoint(path, args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")


def _checkpoint_of(recipe: TrainingRecipe, folder: Path) -> Path:
    """Where a family's checkpoint lies; one of another network under its name is refused."""
    from deploykit_zoo.checkpoint import read_checkpoint

    path = folder / f"{recipe.family}.pt"
    advice = f"make it with: deploykit zoo train {recipe.family} --out {path}"
    if not path.exists():
        expected = f"a trained checkpoint of {recipe.family}, {recipe.arch}"
        raise SourceError(f"there is no {path}", expected=expected, advice=advice)
    arch = read_checkpoint(path).arch
    if arch != recipe.arch:
        raise SourceError(
            f"{path} is of another family: it holds {arch}",
            expected=f"{recipe.arch}, which is what the zoo trains as {recipe.family}",
            advice=f"{advice}; to export it for what it is: deploykit zoo export {path}",
        )
    return path


def _sample(args: argparse.Namespace) -> None:
    from deploykit.accuracy.labelled_images import FASHION_MNIST_FOLDER, read_idx_folder
    from deploykit_zoo.sample import write_sample

    folder = args.data or FASHION_MNIST_FOLDER
    sample = write_sample(
        args.out, read_idx_folder(folder, "train"), read_idx_folder(folder, "test")
    )
    print(f"wrote {len(sample)} test images to {args.out}")


def _say(line: str) -> None:
    print(line, flush=True)
