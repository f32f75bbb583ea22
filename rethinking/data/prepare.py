"""Downloads a TFDS image-classification set and writes it as ArrayRecord files for all later runs.

    python -m rethinking.data.prepare NAME [--data_dir=DIR] [--manual_dir=DIR] [--short_side=N]

NAME is a set of TFDS, or of a TFDS builder of your own in the current folder: in
NAME/NAME_dataset_builder.py (as `tfds new NAME` writes it), NAME/NAME.py or NAME.py.

For a set of your own, which is a path or package.module:function, it only says what the set holds.

Some sets, such as ImageNet, must be downloaded by hand first. --manual_dir names their folder.

--short_side=N also writes the set NAME_short_side_N. The shorter side of its images has at most N
pixels, so that they are decoded faster. First the command says how large the set will be and how
long that takes.

Preparing needs TensorFlow (`pip install -e ".[prepare]"`) and the network; training needs neither.
When it fails, it says why, and the exit code is 2.
"""

import importlib.util
import logging
import pathlib
import sys
import traceback
from argparse import Namespace
from typing import Any

from absl import app
from absl.flags import argparse_flags

from rethinking import own_code
from rethinking.data import manual, source
from rethinking.data.sources import tfds
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError

_LOG = logging.getLogger(__name__)


def prepare(name: str, data_dir: str | None = None, manual_dir: str | None = None) -> str:
    """Prepares a data set unless it is prepared already. Returns a line that describes the set.

    Args:
        name: NAME[/CONFIG][:VERSION] of a TFDS set with the features `image` and `label`. A builder
            of that name in the current folder comes before those of TFDS.
        data_dir: folder of the TFDS sets; else $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        manual_dir: folder of the files that were downloaded by hand; else `downloads/manual` in
            the folder of the sets.

    Raises:
        InputError: if the set is unknown, not image classification, or damaged; if it is already
            there in another format; if files that must be downloaded by hand are missing; if
            TensorFlow is missing; or if the download fails.
    """
    if name == "digits":
        return "digits comes with this package: there is nothing to prepare."
    if own_code.is_own(name) or source.is_path(name):
        return _describe_own(name)
    file = builder_file(name)
    done = tfds.find_folder(name, data_dir, known=file is not None) is not None
    if not done:
        _name_leftovers(name, data_dir)
        root = tfds.resolve_data_dir(data_dir)
        archives = manual.folder(root, manual_dir)
        manual.check(_base(name), archives, root)
        for module in ("tensorflow", "importlib_resources"):
            if importlib.util.find_spec(module) is None:
                raise InputError(
                    f"Preparing a data set needs {module}. It is not installed. Run: "
                    'pip install -e ".[prepare]"'
                )
        _download(name, root, file, archives if manual_dir else None)
    return _describe_prepared(name, data_dir, done)


def _describe_prepared(name: str, data_dir: str | None, done: bool) -> str:
    """A line about a prepared set. `done` says whether it was prepared before."""
    found = source.find(name, data_dir, train=False, evaluation=Evaluation(needed=False))
    found.check()
    sizes = f"{found.info.num_train:,} training and {found.info.num_test:,} test images"
    if not found.info.num_test:
        sizes += " with labels (config.data.test_fraction holds out some of the training images)"
    return f"{name} is {'already ' if done else ''}prepared: {sizes} in {found.folder}"


def prepare_smaller(name: str, short_side: int, data_dir: str | None = None) -> str:
    """Writes the copy of a set whose images are smaller: see `resize`. Returns its description.

    Raises InputError in the cases of `resize.write_copy`, and if the copy is of another set.
    """
    from rethinking.data import resize  # It needs the extra `imagenet`.

    copy = resize.copy_name(name, short_side)
    folder = tfds.find_folder(copy, data_dir, known=True)
    if folder is None:
        _name_leftovers(copy, data_dir)
        resize.write_copy(name, short_side, data_dir)
    else:
        resize.check_origin(name, folder, data_dir)
    done = folder is not None
    return f"{_describe_prepared(copy, data_dir, done)}. Use it by --config.data.name={copy}"


def _describe_own(name: str) -> str:
    """What a set of the user's own holds. Raises InputError if it cannot be used."""
    info = source.find(name, train=False, evaluation=Evaluation(needed=False)).info
    shape = " x ".join(map(str, info.example_shape))
    examples = {
        "image": f"images of {shape}",
        "vector": f"vectors of {shape} features",
        "tokens": f"sequences of {shape} tokens",
    }[info.kind]
    evaluated = f"{info.num_test:,} in {info.eval_split}"
    if not info.num_test:
        evaluated = "none to evaluate (config.data.test_fraction holds out some of the former)"
    return (
        f"{name} needs no preparation: {info.num_train:,} {examples} for training, and "
        f"{evaluated}, in {info.num_classes} classes."
    )


def builder_file(name: str) -> pathlib.Path | None:
    """The file in the current folder that defines the set `name`, if there is one."""
    base = _base(name)
    if not base.isidentifier():
        return None
    builder = f"{base}_dataset_builder.py"
    for place in (f"{base}/{builder}", builder, f"{base}/{base}.py", f"{base}.py"):
        file = pathlib.Path(place).absolute()
        # Another program may be called mnist.py, too.
        if file.is_file() and (file.name == builder or b"tensorflow_datasets" in file.read_bytes()):
            return file
    return None


def _base(name: str) -> str:
    """NAME of NAME[/CONFIG][:VERSION]."""
    return name.partition("/")[0].partition(":")[0]


def _name_leftovers(name: str, data_dir: str | None) -> None:
    """Warns of folders that interrupted preparations left. Only the user knows if they ended."""
    folder = tfds.resolve_data_dir(data_dir) / name.partition(":")[0]
    for path in sorted(folder.glob("incomplete.*")):
        _LOG.warning(
            "%s is incomplete. Unless another program is preparing %s now, delete it.", path, name
        )


def _download(
    name: str, folder: pathlib.Path, file: pathlib.Path | None, archives: pathlib.Path | None
) -> None:
    import tensorflow_datasets

    options = {}
    if archives is not None:
        config = tensorflow_datasets.download.DownloadConfig(manual_dir=str(archives))
        options["download_config"] = config
    try:
        builder = _make_builder(name, folder, file)
        _check_features(name, builder.info.features)
        builder.download_and_prepare(**options)
    except InputError:
        raise
    except Exception as error:  # TFDS, its download libraries and the set's code raise their own.
        reason = f"{type(error).__name__}: {error}"
        if file is not None:
            reason = _place(error, file) + reason
        raise InputError(
            f"{name} could not be prepared in {folder}: {reason}\n"
            "Check the network and the free space. See "
            "https://www.tensorflow.org/datasets/catalog/overview for what the set needs. Then run "
            "the same command again."
        ) from error


def _make_builder(name: str, folder: pathlib.Path, file: pathlib.Path | None) -> Any:
    """TFDS's builder of a set, or the one in `file`."""
    import tensorflow_datasets

    if file is None:
        return tensorflow_datasets.builder(name, data_dir=folder, file_format="array_record")
    _, options = tensorflow_datasets.core.naming.parse_builder_name_kwargs(name)
    base, root, module = _base(name), file.parent, file.stem
    if root.name == base:
        # A builder in a file NAME_dataset_builder.py is called after its package.
        root, module = root.parent, f"{root.name}.{module}"
    with tensorflow_datasets.core.utils.add_sys_path(root):
        make = tensorflow_datasets.core.community.builder_cls_from_module(module)
        builder = make(data_dir=folder, file_format="array_record", **options)
    if builder.name != base:
        raise InputError(
            f"{file} defines the set {builder.name}. Rename the class or the file, so that "
            "both names agree."
        )
    return builder


def _check_features(name: str, features: Any) -> None:
    """Raises InputError unless a set's features are those of image classification."""
    from tensorflow_datasets import features as kinds

    needed = {"image": kinds.Image, "label": kinds.ClassLabel}
    for feature, kind in needed.items():
        if features is None or feature not in features:
            found = f"it has no feature {feature}"
        elif not isinstance(features[feature], kind):
            actual = type(features[feature]).__name__
            found = f"its feature {feature} is a {actual}, but must be a {kind.__name__}"
        else:
            continue
        raise InputError(f"{name} is not an image-classification set: {found}. Choose another set.")


def _place(error: Exception, file: pathlib.Path) -> str:
    """The line of the user's own code in which `error` came up, if it came up there."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if pathlib.Path(frame.filename).parent == file.parent:
            place = f"{frame.filename}, line {frame.lineno}: "
    return place


def parse(argv: list[str]) -> Namespace:
    """The arguments of the command line. Ends the program with code 2 if they are wrong."""
    parser = argparse_flags.ArgumentParser(
        prog="python -m rethinking.data.prepare",
        description=__doc__.split("\n")[0],
        # Another program's flag of the same name, where both are imported, is not ours.
        conflict_handler="resolve",
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="a TFDS image-classification set, such as cifar10 or mnist, or a set of your own",
    )
    parser.add_argument("--data_dir", help="default: $TFDS_DATA_DIR, else ~/tensorflow_datasets")
    parser.add_argument(
        "--manual_dir",
        help="folder of the archives that must be downloaded by hand; default: DATA_DIR/downloads/"
        "manual",
    )
    parser.add_argument(
        "--short_side",
        type=int,
        metavar="N",
        help="also write NAME_short_side_N: the shorter side of each image has at most N pixels",
    )
    return parser.parse_args(argv[1:])


def main(arguments: Namespace) -> None:
    """Prepares the set and describes it. If that fails, prints the reason and exits with code 2."""
    try:
        print(prepare(arguments.name, arguments.data_dir, arguments.manual_dir))
        if arguments.short_side is not None:
            print(prepare_smaller(arguments.name, arguments.short_side, arguments.data_dir))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
