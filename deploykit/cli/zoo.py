"""``deploykit zoo``: train, measure and list the example families, and draw the example data."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from deploykit.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands of ``deploykit zoo``."""
    commands = parser.add_subparsers(dest="zoo_command", metavar="COMMAND", required=True)

    commands.add_parser("list", help="the families that can be trained")

    train = commands.add_parser("train", help="train a family on Fashion-MNIST, on the CPU")
    train.add_argument("family", metavar="FAMILY", help="one that 'zoo list' lists")
    train.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint")
    _add_data(train, "folder with the four IDX files")
    train.add_argument("--epochs", type=int, metavar="N", help="default: the recipe's")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")

    evaluate = commands.add_parser("evaluate", help="measure the top-1 accuracy of a checkpoint")
    evaluate.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _add_data(evaluate, "folder with IDX files, whose test split is used, or a sample (.npz)")

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
    from deploykit.zoo.recipes import RECIPES

    del args
    for family, recipe in sorted(RECIPES.items()):
        height, width = recipe.preprocess.size
        shape = f"{recipe.preprocess.channels}x{height}x{width}"
        print(f"{family:16} {recipe.arch:24} {shape:12} {recipe.epochs} epochs")


def _train(args: argparse.Namespace) -> None:
    from deploykit.zoo.datasets import FASHION_MNIST_FOLDER, read_idx_folder
    from deploykit.zoo.recipes import find_recipe
    from deploykit.zoo.train import train

    recipe = find_recipe(args.family)
    folder = args.data or FASHION_MNIST_FOLDER
    train(
        recipe,
        read_idx_folder(folder, "train"),
        read_idx_folder(folder, "test"),
        args.out,
        seed=args.seed,
        epochs=args.epochs,
        command=_train_command(args),
        say=_say,
    )
    print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")


def _train_command(args: argparse.Namespace) -> str:
    words = ["deploykit", "zoo", "train", args.family, "--out", str(args.out)]
    if args.data is not None:
        words += ["--data", str(args.data)]
    if args.epochs is not None:
        words += ["--epochs", str(args.epochs)]
    if args.seed != 0:
        words += ["--seed", str(args.seed)]
    return shlex.join(words)


def _evaluate(args: argparse.Namespace) -> None:
    from deploykit.zoo.checkpoint import read_checkpoint
    from deploykit.zoo.datasets import FASHION_MNIST_FOLDER, read_labelled_images
    from deploykit.zoo.evaluate import top1
    from deploykit.zoo.networks import network_of_checkpoint, torch_predictor

    checkpoint = read_checkpoint(args.checkpoint)
    network = network_of_checkpoint(checkpoint)
    data = read_labelled_images(args.data or FASHION_MNIST_FOLDER)
    measured = top1(torch_predictor(network), data, checkpoint.preprocess)
    print(f"top-1 {measured.accuracy:.2%} ({measured.correct} of {measured.total} images)")


def _sample(args: argparse.Namespace) -> None:
    from deploykit.zoo.datasets import FASHION_MNIST_FOLDER, read_idx_folder
    from deploykit.zoo.sample import write_sample

    folder = args.data or FASHION_MNIST_FOLDER
    sample = write_sample(
        args.out, read_idx_folder(folder, "train"), read_idx_folder(folder, "test")
    )
    print(f"wrote {len(sample)} test images to {args.out}")


def _say(line: str) -> None:
    print(line, flush=True)
