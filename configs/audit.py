"""The randomization tests on a network and data of your own, with the answers in words.

    python -m launch.sweep --config=configs/audit.py --config.model.name=my_network:SmallNet \\
        --config.data.name=fashion_mnist --workdir=runs/audit --seeds=3 --report

A row is a setting of section 2.1: true labels, random labels, half of the labels replaced, and
three kinds of randomized inputs. All rows are trained exactly alike. The page runs/audit/report and
the end of the terminal's output answer: Does the network fit noise? How much longer does that take?
What does it know when half of the labels are random? Is its test accuracy under random labels
chance? And with other inputs? Rows that make no sense for the data are left out by name.

The defaults are AdamW with a learning rate of 0.001, which falls to zero along a cosine in 200
epochs, and batches of 32. Set your own recipe by --config.FIELD=VALUE: it applies to all rows. Time
is that of six trainings for each seed. --config.stop_when_fit=true ends each when it fits.

Settings: `rethinking.rows.audit`.
"""

from rethinking import rows

ROWS = rows.AUDIT_ROWS
left_out = rows.audit_leaves_out


def get_config(row: str = "true_labels"):
    return rows.audit(row)
