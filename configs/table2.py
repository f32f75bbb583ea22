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

from rethinking import rows

ROWS = rows.TABLE2_ROWS


def get_config(row: str = "none"):
    return rows.table2(row)
