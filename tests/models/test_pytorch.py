"""Networks against their restatement in PyTorch, with the same weights."""

import functools
import itertools

import jax
import numpy as np
import pytest

from rethinking.models.alexnet import local_response_norm
from tests.models.networks import X_V3, images, trained, trained_v3, variables_of, x_of

torch = pytest.importorskip("torch", reason="PyTorch comes with the extra `oracle`")


def test_local_response_norm_matches_pytorch():
    x = 30 * images(2, 5, 4, 64)
    expected = torch.nn.functional.local_response_norm(
        to_torch(x), size=9, alpha=0.001, beta=0.75, k=1.0
    )
    np.testing.assert_allclose(local_response_norm(x), from_torch(expected), rtol=1e-5)


def to_torch(x):
    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)


def from_torch(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


def pad_same(x, kernel, stride, value=0.0):
    """TensorFlow's SAME padding, whose larger half is below and to the right."""
    total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
    (top, left), (bottom, right) = [n // 2 for n in total], [n - n // 2 for n in total]
    return torch.nn.functional.pad(x, (left, right, top, bottom), value=value)


def conv(x, params, stride=1):
    kernel = torch.from_numpy(np.array(params["kernel"])).permute(3, 2, 0, 1)
    bias = torch.from_numpy(np.array(params["bias"])) if "bias" in params else None
    return torch.nn.functional.conv2d(pad_same(x, kernel.shape[-1], stride), kernel, bias, stride)


def dense(x, params):
    return x @ torch.from_numpy(np.array(params["kernel"])) + torch.from_numpy(
        np.array(params["bias"])
    )


def max_pool(x):
    return torch.nn.functional.max_pool2d(pad_same(x, 3, 2, -torch.inf), 3, 2)


def batch_norm(x, params):
    scale, bias = (
        torch.from_numpy(np.array(params[key])) if key in params else None
        for key in ("scale", "bias")
    )
    return torch.nn.functional.batch_norm(x, None, None, scale, bias, training=True, eps=1e-3)


def torch_inception(params, x):
    blocks = iter([params[f"ConvBlock_{i}"] for i in range(19)])

    def block(x, stride=1):
        layer = next(blocks)
        x = conv(x, layer["Conv_0"], stride)
        return torch.relu(batch_norm(x, layer["BatchNorm_0"]) if "BatchNorm_0" in layer else x)

    def inception(x):
        return torch.cat([block(x), block(x)], dim=1)

    def downsample(x):
        return torch.cat([block(x, stride=2), max_pool(x)], dim=1)

    x = block(x)
    for module in [inception] * 2 + [downsample] + [inception] * 4 + [downsample] + [inception] * 2:
        x = module(x)
    assert next(blocks, None) is None
    return dense(x.mean(dim=(2, 3)), params["Dense_0"])


def torch_alexnet(params, x):
    for i in range(2):
        x = max_pool(torch.relu(conv(x, params[f"Conv_{i}"])))
        x = torch.nn.functional.local_response_norm(x, size=9, alpha=0.001, beta=0.75, k=1.0)
    x = x.permute(0, 2, 3, 1).flatten(1)
    for i in range(2):
        x = torch.relu(dense(x, params[f"Dense_{i}"]))
    return dense(x, params["Dense_2"])


def torch_wide_resnet(params, x):
    x = conv(x, params["Conv_0"])
    for i in range(12):
        layer = params[f"ResidualBlock_{i}"]
        stride = 2 if i in (4, 8) else 1
        y = torch.relu(batch_norm(x, layer["BatchNorm_0"]))
        first, second = ("Conv_1", "Conv_2") if stride == 2 else ("Conv_0", "Conv_1")
        shortcut = conv(y, layer["Conv_0"], stride) if stride == 2 else x
        y = torch.relu(batch_norm(conv(y, layer[first], stride), layer["BatchNorm_1"]))
        x = shortcut + conv(y, layer[second])
    x = torch.relu(batch_norm(x, params["BatchNorm_0"]))
    return dense(x.mean(dim=(2, 3)), params["Dense_0"])


def torch_resnet(params, x):
    """ResNet-18 for CIFAR10, with PyTorch's own padding and epsilon."""
    functional = torch.nn.functional

    def normalized(x, layers, number, stride=1):
        kernel = torch.from_numpy(np.array(layers[f"Conv_{number}"]["kernel"])).permute(3, 2, 0, 1)
        x = functional.conv2d(x, kernel, None, stride, padding=kernel.shape[-1] // 2)
        norm = layers[f"BatchNorm_{number}"]
        scale, bias = (torch.from_numpy(np.array(norm[key])) for key in ("scale", "bias"))
        return functional.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)

    x = torch.relu(normalized(x, params, 0))
    for i in range(8):
        layers = params[f"BasicBlock_{i}"]
        stride = 2 if i in (2, 4, 6) else 1
        y = torch.relu(normalized(x, layers, 0, stride))
        y = normalized(y, layers, 1)
        shortcut = normalized(x, layers, 2, stride) if stride == 2 else x
        x = torch.relu(shortcut + y)
    return dense(x.mean(dim=(2, 3)), params["Dense_0"])


class TorchVisionTransformer(torch.nn.Module):
    """The same from PyTorch's own encoder layers, for images of 12 x 12."""

    def __init__(self):
        super().__init__()
        self.cut = torch.nn.Conv2d(3, 192, 4, 4)
        self.class_token = torch.nn.Parameter(torch.zeros(192))
        self.positions = torch.nn.Parameter(torch.zeros(10, 192))
        layer = functools.partial(
            torch.nn.TransformerEncoderLayer,
            *(192, 3, 4 * 192, 0.0, "gelu"),
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        self.blocks = torch.nn.Sequential(*(layer() for _ in range(6)))
        self.norm = torch.nn.LayerNorm(192, 1e-6)
        self.head = torch.nn.Linear(192, 10)

    def forward(self, x):
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x)[:, 0]))

    def take(self, params):
        """Copies our weights."""

        def copy(theirs, ours):
            theirs.data = torch.from_numpy(np.array(ours))

        def copy_layer(theirs, ours, prefix=""):
            copy(getattr(theirs, f"{prefix}weight"), ours.get("kernel", ours.get("scale")).T)
            copy(getattr(theirs, f"{prefix}bias"), ours["bias"])

        self.cut.weight.data = torch.from_numpy(
            np.array(params["Conv_0"]["kernel"]).transpose(3, 2, 0, 1)
        )
        copy(self.cut.bias, params["Conv_0"]["bias"])
        copy(self.class_token, params["class_token"])
        copy(self.positions, params["positions"])
        for i, block in enumerate(self.blocks):
            layers = params[f"Block_{i}"]
            copy_layer(block.norm1, layers["LayerNorm_0"])
            copy_layer(block.self_attn, layers["Dense_0"], "in_proj_")
            copy_layer(block.self_attn.out_proj, layers["Dense_1"])
            copy_layer(block.norm2, layers["LayerNorm_1"])
            copy_layer(block.linear1, layers["Dense_2"])
            copy_layer(block.linear2, layers["Dense_3"])
        copy_layer(self.norm, params["LayerNorm_0"])
        copy_layer(self.head, params["Dense_0"])


def torch_vision_transformer(params, x):
    network = TorchVisionTransformer()
    ours = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(parameter.numel() for parameter in network.parameters()) == ours
    network.take(params)
    with torch.no_grad():
        return network(x)


def torch_mlp(params, x):
    x = x.permute(0, 2, 3, 1).flatten(1)
    for i in range(len(params) - 1):
        x = torch.relu(dense(x, params[f"Dense_{i}"]))
    return dense(x, params[f"Dense_{len(params) - 1}"])


@pytest.mark.parametrize(
    ("name", "restatement"),
    [
        ("inception", torch_inception),
        ("inception_no_bn", torch_inception),
        ("alexnet", torch_alexnet),
        ("mlp_3x512", torch_mlp),
        ("wide_resnet_28_1", torch_wide_resnet),
        ("resnet_18", torch_resnet),
        ("vit_patch4", torch_vision_transformer),
    ],
)
def test_forward_matches_pytorch(name, restatement):
    logits, _ = trained(name)
    expected = restatement(variables_of(name)["params"], to_torch(x_of(name))).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def torch_inception_v3(params, x):
    """Features before dropout, and the input of the auxiliary head's last layer."""
    functional = torch.nn.functional

    def scope(layers):
        numbers = itertools.count()

        def conv(x, *kernel, stride=1, padding="same"):
            layer = layers[f"ConvBlock_{next(numbers)}"]
            weight = torch.from_numpy(np.array(layer["Conv_0"]["kernel"])).permute(3, 2, 0, 1)
            assert weight.shape[2:] == kernel
            return torch.relu(
                batch_norm(
                    functional.conv2d(x, weight, None, stride, padding), layer["BatchNorm_0"]
                )
            )

        return conv

    def mean(x):
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def down(conv, x):
        return conv(x, 3, 3, stride=2, padding="valid")

    def max_pool(x):
        return functional.max_pool2d(x, 3, 2)

    def block_5(conv, x):
        a = conv(x, 1, 1)
        b = conv(conv(x, 1, 1), 5, 5)
        c = conv(conv(conv(x, 1, 1), 3, 3), 3, 3)
        return [a, b, c, conv(mean(x), 1, 1)]

    def block_6(conv, x):
        a = conv(x, 1, 1)
        b = conv(conv(conv(x, 1, 1), 1, 7), 7, 1)
        c = conv(conv(conv(conv(conv(x, 1, 1), 7, 1), 1, 7), 7, 1), 1, 7)
        return [a, b, c, conv(mean(x), 1, 1)]

    def block_7(conv, x):
        a = conv(x, 1, 1)
        b = conv(x, 1, 1)
        b1, b2 = conv(b, 1, 3), conv(b, 3, 1)
        c = conv(conv(x, 1, 1), 3, 3)
        c1, c2 = conv(c, 1, 3), conv(c, 3, 1)
        return [a, b1, b2, c1, c2, conv(mean(x), 1, 1)]

    def block_6a(conv, x):
        return [down(conv, x), down(conv, conv(conv(x, 1, 1), 3, 3)), max_pool(x)]

    def block_7a(conv, x):
        a = down(conv, conv(x, 1, 1))
        return [a, down(conv, conv(conv(conv(x, 1, 1), 1, 7), 7, 1)), max_pool(x)]

    conv = scope(params)
    x = conv(conv(down(conv, x), 3, 3, padding="valid"), 3, 3)
    x = max_pool(conv(conv(max_pool(x), 1, 1), 3, 3, padding="valid"))
    blocks = {
        "5b": block_5,
        "5c": block_5,
        "5d": block_5,
        "6a": block_6a,
        "6b": block_6,
        "6c": block_6,
        "6d": block_6,
        "6e": block_6,
        "7a": block_7a,
        "7b": block_7,
        "7c": block_7,
    }
    for name, block in blocks.items():
        x = torch.cat(block(scope(params[f"Mixed_{name}"]), x), 1)
        if name == "6e":
            conv = scope(params["AuxHead"])
            aux = conv(functional.avg_pool2d(x, 5, 3), 1, 1)
            aux = conv(aux, *aux.shape[2:], padding="valid")
    return x.mean(dim=(2, 3)), aux.flatten(1)


def test_inception_v3_matches_pytorch():
    variables, (((_, aux_logits), updated), _) = trained_v3()
    params = variables["params"]
    features, aux_features = torch_inception_v3(params, to_torch(X_V3))
    dropped = np.asarray(updated["intermediates"]["Dropout_0"]["__call__"][0])
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], features.numpy()[kept] / 0.8, rtol=1e-3, atol=1e-3)
    expected = dense(aux_features, params["AuxHead"]["Dense_0"]).numpy()
    # The tolerance is larger than for the small networks. The head's last batch norm divides by the
    # variance of six numbers.
    np.testing.assert_allclose(aux_logits, expected, atol=1e-3 * np.abs(expected).max())
