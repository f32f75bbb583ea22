"""Table 2: Inception V3 on ImageNet, with true and with random labels; Figure 2a is drawn from the same runs.

    python -m rethinking.main --config=configs/table2.py:random_labels --workdir=runs/random_labels
    python -m rethinking.main --config=configs/table2.py:none --workdir=runs/none --config.data.name=imagenette \\
        --config.batch_size=64 --config.model.options.bn_momentum=0.99 --config.average_decay=0.99

A row is `none` or [aug][+random_labels][+dropout][+wd]. The network fits a million random labels as it fits the true
ones, top-1 above 90%, with the same settings; test accuracy is then at chance. Settings and the choices behind them:
`rethinking.rows.imagenet`. 100 epochs of ImageNet are 4.3e18 floating-point operations; on 16 TPU v5e chips about
1.9 hours by the roofline of `launch.compile`, not measured. Start it with `launch.tpu_pod` or `launch.slurm`.
The second command is the same experiment on a small set of ImageNet's own images.
"""

from rethinking import config, rows

ROWS = (
    "aug+dropout+wd", "aug", "wd", "none",
    "random_labels+dropout+wd", "random_labels+wd", "random_labels",
)  # fmt: skip


def get_config(row: str = "none"):
    options = [] if row == "none" else row.split("+")
    for option in options:
        config.known(option, rows.IMAGENET_OPTIONS, f"table2 row {row!r}: unknown option")
    row_config = rows.imagenet()
    for option, add in rows.IMAGENET_OPTIONS.items():
        if option in options:
            add(row_config)
    name = "+".join(option for option in rows.IMAGENET_OPTIONS if option in options) or "none"
    return rows.named(row_config, "table2", name)
