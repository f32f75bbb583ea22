"""Downloads a TFDS image-classification set and writes it as ArrayRecord files for all later runs.

    python -m rethinking.data.prepare NAME [--data_dir=DIR]

It needs TensorFlow (`pip install -e ".[prepare]"`) and the network; training needs neither. When it
fails, it says why, and the exit code is 2.
"""

import importlib.util
import sys
from argparse import Namespace

from absl import app
from absl.flags import argparse_flags

from rethinking.data import source
from rethinking.errors import InputError


def prepare(name: str, data_dir: str | None = None) -> str:
    """Prepares a data set unless it is prepared already. Returns a line that describes the set.

    Args:
        name: NAME[/CONFIG][:VERSION] of a TFDS set with the features `image` and `label`.
        data_dir: folder of the TFDS sets; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
        InputError: if the set is unknown, not image classification, or damaged; if it is already
            there in another format; if TensorFlow is missing; or if the download fails.
    """
    if name == "digits":
        return "digits comes with this package: there is nothing to prepare."
    done = source.find_folder(name, data_dir) is not None
    if not done:
        for module in ("tensorflow", "importlib_resources"):
            if importlib.util.find_spec(module) is None:
                raise InputError(
                    f"Preparing a data set needs {module}. It is not installed. Run: "
                    'pip install -e ".[prepare]"'
                )
        _download(name, data_dir)
    found = source.find(name, data_dir, train=False)
    source.check_shards(found)
    sizes = f"{found.info.num_train:,} training and {found.info.num_test:,} test images"
    return f"{name} is {'already ' if done else ''}prepared: {sizes} in {found.folder}"


def _download(name: str, data_dir: str | None) -> None:
    import tensorflow_datasets as tfds

    folder = source.resolve_data_dir(data_dir)
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        features = builder.info.features
        if features is None or not {"image", "label"} <= set(features):
            raise InputError(
                f"{name} is not an image-classification set: it does not have both of the features "
                "image and label. Choose another set."
            )
        builder.download_and_prepare()
    except InputError:
        raise
    except Exception as error:  # TFDS, its download libraries and the set's code raise their own.
        raise InputError(
            f"{name} could not be prepared in {folder}: {type(error).__name__}: {error}\n"
            "Check the network and the free space. See "
            "https://www.tensorflow.org/datasets/catalog/overview for what the set needs. Then run "
            "the same command again."
        ) from error


def parse(argv: list[str]) -> Namespace:
    """The arguments of the command line. Ends the program with code 2 if they are wrong."""
    parser = argparse_flags.ArgumentParser(
        prog="python -m rethinking.data.prepare", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "name", metavar="NAME", help="a TFDS image-classification set, such as cifar10 or mnist"
    )
    parser.add_argument("--data_dir", help="default: $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    return parser.parse_args(argv[1:])


def main(arguments: Namespace) -> None:
    """Prepares the set and describes it. If that fails, prints the reason and exits with code 2."""
    try:
        print(prepare(arguments.name, arguments.data_dir))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
