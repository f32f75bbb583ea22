"""Table 2: Inception V3 on ImageNet, with true and with random labels. Also gives Figure 2a.

    python -m rethinking.main --config=configs/table2.py:random_labels --workdir=runs/random_labels
    python -m rethinking.main --config=configs/table2.py:none --workdir=runs/none \\
        --config.data.name=imagenette --config.batch_size=64 \\
        --config.model.options.bn_momentum=0.99 --config.average_decay=0.99

A row is `none` or [aug][+random_labels][+dropout][+wd]. In the paper the network fits a million
random labels, top-1 above 87%, with the same settings. Its test accuracy is then that of guessing.

100 epochs of ImageNet take 4.3e18 floating-point operations. By the roofline of `launch.compile`
that is about 1.9 hours on 16 TPU v5e chips. This time is an estimate, not a measurement. Start a
run with `launch.tpu_pod` or `launch.slurm`: see docs/imagenet.md. The second command is the same
experiment on a small set of ImageNet's images. Settings: `rethinking.settings.imagenet`.

A run evaluates 50,000 training images and all test images after each epoch, and all training images
at the end. The training images take 1.6% of its work, and all evaluation takes 2.9%, because it
only goes forward. Where reading images bounds the speed, it is 4.5% and 8.1%. On a pod it is more,
because the processes that read must start: on 16 v5e chips at the roofline's speed, some 12 of 79
seconds an epoch, half of them for training images. --config.eval_epochs=2 halves all that.
"""

from rethinking import rows

ROWS = rows.TABLE2_ROWS


def get_config(row: str = "none"):
    return rows.table2(row)
