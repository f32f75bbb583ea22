"""The files of TFDS sets that the user must download by hand, such as ImageNet's archives."""

import pathlib

from rethinking.data.faults import naming, require_space
from rethinking.errors import InputError

# The archives of a set, with their sizes in bytes: from TFDS's table of checksums.
ARCHIVES = {
    "imagenet2012": {
        "ILSVRC2012_img_train.tar": 147_897_477_120,
        "ILSVRC2012_img_val.tar": 6_744_924_160,
    }
}
# Where to get them.
_PLACES = {"imagenet2012": "https://image-net.org/download-images, after registration there"}


def folder(data_dir: pathlib.Path, manual_dir: str | None) -> pathlib.Path:
    """The folder of the files that were downloaded by hand: `manual_dir`, else TFDS's default."""
    if manual_dir:
        return pathlib.Path(manual_dir).expanduser().absolute()
    return data_dir / "downloads" / "manual"


def check(name: str, archives: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Raises InputError unless the archives of the set `name` are whole and the disk has room.

    Args:
        name: of the set, without configuration and version. Only those of `ARCHIVES` are checked.
        archives: the folder that must hold the archives.
        data_dir: the folder to which the prepared set is written.
    """
    expected = ARCHIVES.get(name, {})
    for file, size in expected.items():
        path = archives / file
        with naming(path):
            found = path.stat().st_size if path.is_file() else None
        if found == size:
            continue
        wrong = "is missing"
        if found is not None:
            wrong = f"has {found:,} bytes instead of {size:,}, so it is damaged or cut short"
        raise InputError(
            f"{path} {wrong}. {name} is prepared from {' and '.join(expected)}, which must be "
            f"downloaded by hand: {_PLACES[name]}. Put them into {archives}, or name their folder "
            "by --manual_dir. See docs/imagenet.md."
        )
    # TFDS keeps all images twice for a moment, but deletes one copy piece by piece.
    require_space(data_dir, 1.05 * sum(expected.values()), f"Preparing {name}")
