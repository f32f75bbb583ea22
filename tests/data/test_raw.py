"""Sets of arrays: .npz files and functions. What their arrays become, and which are refused."""

import sys

import numpy as np
import pytest

from rethinking.data import arrays, stream
from rethinking.data.description import HELD_OUT
from rethinking.data.splits import Evaluation
from rethinking.errors import InputError
from tests.data.own_sets import assert_holds, digits

RNG = np.random.default_rng(0)
LABELS = np.arange(12) % 3


def pairs(x, y=LABELS, **others):
    """A set whose test part is the first 6 examples of the training part."""
    return {"x_train": x, "y_train": y, "x_test": x[:6], "y_test": y[:6]} | others


VECTORS = RNG.normal(size=(12, 5)).astype(np.float32)
IMAGES = RNG.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
SMALL = RNG.integers(0, 256, (12, 4, 5), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    """A function that writes an .npz file and returns its path."""

    def write(content, name="own.npz"):
        np.savez(tmp_path / name, **content)
        return str(tmp_path / name)

    return write


@pytest.fixture
def function(tmp_path, monkeypatch):
    """A function that writes the module own_data and returns the name of its function `load`."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body):
        sys.modules.pop("own_data", None)
        lines = "\n    ".join(body.splitlines())
        source = f"import numpy as np\n\n\ndef load():\n    {lines}\n"
        (tmp_path / "own_data.py").write_text(source)
        return "own_data:load"

    yield write
    sys.modules.pop("own_data", None)


def test_an_npz_file_holds_what_its_arrays_are(save):
    held = digits()
    path = save(held)
    assert_holds(arrays.load(path), held)
    info = arrays.describe(path)
    assert (info.num_train, info.num_test, info.num_classes) == (40, 20, 10)
    assert (info.kind, info.example_shape, info.eval_split) == ("image", (8, 8, 3), "test")
    whole = arrays.load(path).train
    part = arrays.load(path, num_train=9, seed=5).train
    np.testing.assert_array_equal(part.indices, np.random.default_rng(5).permutation(40)[:9])
    np.testing.assert_array_equal(part.images, whole.images[part.indices])


def test_a_relative_path_and_one_in_the_home_folder(save, tmp_path, monkeypatch):
    save(digits())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("own.npz", "./own.npz", "~/own.npz"):
        assert arrays.describe(name).num_train == 40


def test_an_npz_file_that_changes_is_read_again(save):
    path = save(pairs(SMALL))
    arrays.load(path)
    assert_holds(arrays.load(save(pairs(IMAGES))), pairs(IMAGES))


@pytest.mark.parametrize(
    "x, kind, expected",
    [
        (SMALL, "image", SMALL[..., None]),
        (IMAGES, "image", IMAGES),
        (IMAGES.astype(np.int64), "image", IMAGES),
        (IMAGES[..., :1] > 99, "image", (IMAGES[..., :1] > 99) * np.uint8(255)),
        (SMALL.astype(np.uint16) * 257, "image", SMALL[..., None]),
        (IMAGES / 255, "image", IMAGES.astype(np.float32)),
        (IMAGES.astype(np.float16) / 64 - 2, "image", None),
        (VECTORS, "vector", VECTORS),
        (VECTORS.astype(np.float64), "vector", VECTORS),
        (SMALL[:, 0], "vector", SMALL[:, 0].astype(np.float32)),
        (SMALL[:, 0] > 99, "vector", (SMALL[:, 0] > 99).astype(np.float32)),
        (SMALL[:, 0].astype(np.int64), "tokens", SMALL[:, 0].astype(np.int32)),
        (SMALL[:, 0].astype(np.uint16), "tokens", SMALL[:, 0].astype(np.int32)),
    ],
)
def test_what_examples_of_each_dtype_and_shape_become(save, x, kind, expected):
    path = save(pairs(x))
    info, train = arrays.describe(path), arrays.load(path).train
    if expected is None:  # floats: 1 is white
        expected = x.astype(np.float32) * np.float32(255)
    assert (info.kind, info.example_shape) == (kind, expected.shape[1:])
    assert train.images.dtype == expected.dtype == info.example_dtype
    np.testing.assert_allclose(train.images, expected, rtol=1e-6)


def test_16_bits_in_one_split_are_16_bits_in_all(save):
    held = pairs(SMALL.astype(np.uint16) * 257) | {"x_test": np.full((6, 4, 5), 200, np.uint16)}
    dataset = arrays.load(save(held))
    np.testing.assert_array_equal(dataset.train.images, SMALL[..., None])
    assert (dataset.test.images == 1).all()  # 200 / 257


@pytest.mark.parametrize(
    "y, expected",
    [
        (LABELS[:, None], LABELS),  # as in Keras's CIFAR10
        (LABELS.astype(np.uint8), LABELS),
        (LABELS > 0, LABELS > 0),
        (np.array(["cat", "ant", "bee"])[LABELS], np.array([2, 0, 1])[LABELS]),
        (np.array([b"cat", b"ant", b"bee"])[LABELS], np.array([2, 0, 1])[LABELS]),
    ],
)
def test_what_labels_become(save, y, expected):
    dataset = arrays.load(save(pairs(VECTORS, y)))
    assert dataset.num_classes == expected.max() + 1
    np.testing.assert_array_equal(dataset.train.labels, expected)
    np.testing.assert_array_equal(dataset.test.labels, expected[:6])


def test_parts_for_validation_and_held_out_examples(save):
    whole = pairs(VECTORS, x_val=VECTORS[:4], y_val=LABELS[:4])
    path = save(whole)
    assert arrays.describe(path).eval_split == "test"
    assert arrays.describe(path, evaluation=Evaluation("validation")).num_test == 4
    one = save({key: whole[key] for key in ("x_train", "y_train")}, "one.npz")
    with pytest.raises(InputError, match=r"has train\. Hold out .*data\.test_fraction=0\.1"):
        arrays.describe(one)
    dataset = arrays.load(one, evaluation=Evaluation(fraction=0.25))
    assert dataset.eval_split == HELD_OUT
    indices = [*dataset.train.indices, *dataset.test.indices]
    assert sorted(indices) == list(range(12)) and len(dataset.test.indices) == 3
    np.testing.assert_array_equal(dataset.test.images, VECTORS[dataset.test.indices])
    without = {key: whole[key] for key in ("x_test", "y_test")}
    with pytest.raises(InputError, match="no training examples"):
        arrays.describe(save(without, "test.npz"))
    assert arrays.load(save(without, "test.npz"), train=False).test.images.shape == (6, 5)


def nan(x):
    x = x.copy()
    x[7, 1] = np.nan
    return x


BAD = {
    "a gap": (pairs(VECTORS, np.array([0, 1, 3])[LABELS]), "train are 0, 1, 3, without 2"),
    "from one": (pairs(VECTORS, LABELS + 1), "train are 1, 2, 3, without 0"),
    "floats as labels": (pairs(VECTORS, LABELS / 1.0), "y_train holds floats.* y.astype"),
    "one-hot labels": (pairs(VECTORS, np.eye(3, dtype=int)[LABELS]), r"\(12, 3\).* y.argmax"),
    "texts and numbers": (
        pairs(VECTORS, y_test=np.array(["a"] * 6)),
        "some labels are texts and others are numbers",
    ),
    "NaN": (pairs(nan(VECTORS)), "x_train .* NaN or infinite in 1 examples, .* index 7"),
    "infinite": (pairs(VECTORS, x_test=VECTORS[:6] * np.inf), "x_test .* 6 examples, .* index 0"),
    "new class": (pairs(VECTORS, y_test=np.array([0, 0, 0, 0, 0, 3])), "test has the class 3, "),
    "new text": (
        pairs(VECTORS, np.array(["a", "b", "c"])[LABELS], y_test=np.array(["a"] * 5 + ["d"])),
        "test has the class 'd', which train does not have",
    ),
    "shapes": (pairs(VECTORS, x_test=VECTORS[:6, :4]), r"train are \(5,\) .* test are \(4,\)"),
    "dtypes": (pairs(IMAGES, x_test=IMAGES[:6] / 255), r"of uint8, but .* of float32"),
    "lengths": (pairs(VECTORS, LABELS[:11]), "x_train has 12 examples, but y_train has 11 labels"),
    "object array": (
        pairs(np.array([[1.0], [2.0, 3.0]] * 6, dtype=object)),
        "Python objects, which are not read",
    ),
    "dates": (pairs(VECTORS.astype("M8[s]")), r"x_train has the dtype datetime64"),
    "texts": (pairs(VECTORS.astype(str)), "x_train holds texts"),
    "empty": (pairs(VECTORS, x_test=VECTORS[:0], y_test=LABELS[:0]), "x_test .* is empty"),
    "one number": (pairs(VECTORS[:, 0]), r"x_train has the shape \(12,\)"),
    "channels first": (pairs(np.zeros((12, 3, 32, 32))), "32 channels.*transpose"),
    "bytes as floats": (pairs(IMAGES.astype(np.float32)), r"1 is white.*astype\(np.uint8\)"),
    "wide pixels": (pairs(IMAGES.astype(int) * 9), "x_train has pixels from 0 to 22"),
    "negative tokens": (pairs(LABELS[:, None] - 1), "taken for tokens, but some are negative"),
    "other names": ({"images": VECTORS, "labels": LABELS}, "x_train and y_train, but images, lab"),
    "no labels": ({"x_train": VECTORS, "x_test": VECTORS}, "has x_train, but no y_train"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_set_is_refused_by_name(save, kind):
    content, message = BAD[kind]
    path = save(content)
    for read in (arrays.describe, arrays.load):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert path in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, 0.5, -1, -30])
@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_an_npz_file_that_is_cut_short(tmp_path, kept, savez):
    path = tmp_path / "own.npz"
    savez(path, **pairs(IMAGES))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(InputError, match=rf"{path} is damaged or not an \.npz file"):
        arrays.describe(str(path))


def test_a_flipped_bit_in_an_npz_file_is_found(save, tmp_path):
    path = save(pairs(IMAGES))
    content = bytearray((tmp_path / "own.npz").read_bytes())
    content[len(content) // 3] ^= 1
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        arrays.describe(path)


class Touch:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_is_unpickled(save, tmp_path):
    objects = np.array([Touch(tmp_path / "touched")] * 12, dtype=object)
    for content in (pairs(objects), pairs(VECTORS, objects)):
        with pytest.raises(InputError, match="Python objects, which are not read"):
            arrays.describe(save(content))
    (tmp_path / "pickle.npz").write_bytes(objects.dumps())
    with pytest.raises(InputError, match=r"not an \.npz file"):
        arrays.describe(str(tmp_path / "pickle.npz"))
    assert not (tmp_path / "touched").exists()


def test_paths_that_lead_to_no_set(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    np.save(tmp_path / "one.npy", VECTORS)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for name, message in (
        (str(tmp_path / "none.npz"), "there is no such file or folder"),
        (str(tmp_path / "notes.txt"), r"is a file, but not an \.npz"),
        (str(tmp_path / "one.npz"), "holds a single array"),
        ("gs://bucket/own.npz", "cannot be read from a bucket"),
    ):
        with pytest.raises(InputError, match=message):
            arrays.describe(name)


def test_arrays_cannot_be_streamed(save, function):
    name = function("return {'x_train': np.eye(4), 'y_train': [0, 1, 0, 1]}")
    for each in (save(pairs(IMAGES)), name):
        evaluation = Evaluation(fraction=0.5)
        with pytest.raises(InputError, match=r"cannot be streamed.*data\.stream=False"):
            stream.check(each, evaluation=evaluation)


@pytest.mark.parametrize(
    "returned",
    [
        "dict(x_train=x, y_train=y, x_test=x[:6], y_test=y[:6])",
        "(x, y), (x[:6], y[:6])",
        "[[x.tolist(), y.tolist()], [x[:6].tolist(), y[:6].tolist()]]",
    ],
)
def test_a_function_returns_what_an_npz_file_holds(function, returned):
    name = function(
        f"x = np.arange(60, dtype=np.float32).reshape(12, 5)\ny = np.arange(12) % 3\n"
        f"return {returned}"
    )
    assert_holds(arrays.load(name), pairs(np.arange(60, dtype=np.float32).reshape(12, 5)))


def test_a_function_is_called_once(function):
    name = function(
        "load.calls = getattr(load, 'calls', 0) + 1\nx = np.ones((6, 2))\ny = [0, 1, 0, 1, 0, 1]\n"
        "return (x, y), (x, y)"
    )
    arrays.describe(name)
    assert not arrays.load(name).train.images.flags.writeable, "later loads give the same array"
    assert sys.modules["own_data"].load.calls == 1


@pytest.mark.parametrize(
    "body, message",
    [
        ("x = 1\nreturn x / 0", r"own_data\.py, line 6: ZeroDivisionError.*Correct it there"),
        ("return np.load('/no/such.npy')", r"own_data\.py, line 5: FileNotFoundError"),
        ("return np.ones() + 1", r"own_data\.py, line 5: TypeError"),
        ("return 5", r"returned this: int\. It must return a dictionary with x_train"),
        ("return 1, 2, 3", "returned this: tuple of 3"),
        ("return (1, 2), (3, 4)", "x_train has the shape"),
        ("return {'x': 1}", r"dictionary of own_data:load has no x_train"),
        (
            "x = [[1.0], [2.0, 3.0]]\nreturn (x, [0, 1]), (x, [0, 1])",
            "x_train cannot be made an array",
        ),
        (
            "x = np.ones((2, 2))\nreturn (x, np.array(['a', None])), (x, ['a', 'b'])",
            r"y_train has the dtype object.*astype\(str\)",
        ),
    ],
)
def test_a_function_that_fails_or_returns_no_set(function, body, message):
    with pytest.raises(InputError, match=message) as caught:
        arrays.describe(function(body))
    assert "own_data" in str(caught.value)


def test_names_that_are_no_function(function):
    function("return 5")
    for name, message in (
        ("no_such_module:load", "importing no_such_module failed"),
        ("own_data:lode", r"has no lode\. Did you mean 'load'"),
        ("own_data:__name__", "__name__ is a str"),
        ("tests.data.own_sets:write_folder", "called without arguments"),
    ):
        with pytest.raises(InputError, match=message):
            arrays.describe(name)
