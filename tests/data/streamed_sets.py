"""Small sets of pictures in files, intact and not, for runs that read them batch by batch."""

import io
import shutil

import numpy as np

from tests.data import streams
from tests.data.pictures import encode, noise

CLASSES, NUM = 4, {"train": 44, "val": 20}
# The names of the sets, for a run whose working directory holds them.
STREAMED = ("./photos", "./damaged", "./one_part", "./one_class", "./saved", "./parquet")
# Of these, every image to evaluate is damaged, or nothing is to evaluate, or nothing to stream.
REFUSED = ("./unreadable", "./loose", "./set.npz", "digits")


def write(root):
    """Writes the sets to the folder `root`, and the TFDS set "pictures" too."""
    streams.write(root)
    _write_folder(root / "photos")
    _write_folder(root / "damaged", damaged=(0, 1, 17, 43))
    _write_folder(root / "unreadable")
    for file in (root / "unreadable" / "val").glob("*/*"):
        file.write_text("not an image")
    _write_folder(root / "one_part")
    shutil.rmtree(root / "one_part" / "val")
    _write_folder(root / "loose")
    shutil.rmtree(root / "loose" / "val")
    (root / "loose" / "val").mkdir()
    (root / "loose" / "val" / "0.jpg").write_bytes(_picture(0))
    _write_folder(root / "one_class", classes=1)
    _write_tables(root)
    images = np.stack([noise(8, 8, seed) for seed in range(40)])
    labels = np.arange(40) % CLASSES
    np.savez(root / "set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def _picture(seed):
    """The bytes of a picture. A few are of unusual form or format."""
    unusual = {5: (1, 1), 6: (2, 300), 7: (300, 1), 8: (8, 8)}
    sides = np.random.default_rng(seed).integers(12, 40, 2)
    image = noise(*unusual.get(seed, sides), seed)
    if seed == 9:
        return encode(image[..., 0], "jpeg")  # grey
    if seed == 10:
        return encode(np.dstack([image, image[..., :1]]), "png")  # with transparency
    return encode(image, "jpeg")


def _write_folder(root, classes=CLASSES, damaged=()):
    """Writes train/CLASS/NUMBER.jpg and val/CLASS/NUMBER.jpg.

    In both, pictures with the numbers `damaged` are empty, or cut short, or something else.
    """
    for split, num in NUM.items():
        for number in range(num):
            content = _picture(number)
            if number in damaged:
                content = (b"", content[: len(content) // 2], b"not an image")[number % 3]
            folder = root / split / f"class_{number % classes}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03d}.jpg").write_bytes(content)


def _write_tables(root):
    """Writes the pictures as Hugging Face sets: "saved" with two parts, "parquet" with one."""
    import datasets  # here, because it is imported slowly

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=[f"class_{number}" for number in range(CLASSES)]),
        }
    )
    tables = {}
    for split, num in NUM.items():
        content = {
            "image": [{"bytes": _picture(number), "path": None} for number in range(num)],
            "label": [number % CLASSES for number in range(num)],
        }
        tables[split] = datasets.Dataset.from_dict(content, features=features)
    datasets.DatasetDict(tables).save_to_disk(root / "saved")
    (root / "parquet").mkdir()
    table = io.BytesIO()
    tables["train"].to_parquet(table)
    (root / "parquet" / "train.parquet").write_bytes(table.getvalue())
