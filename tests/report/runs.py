"""Made-up run directories, as experiments would leave them."""

import json
import math

from rethinking import experiments, report, rows
from rethinking.report import page
from rethinking.settings import SETTINGS, cifar10, named, setting

MARKUP = "</td><script>window.obeyed=1</script><img src=x onerror=window.obeyed=1>$x_{"


def make_run(
    root,
    row,
    seed=0,
    *,
    status="complete",
    train=1.0,
    test=0.5,
    fit_step=3900,
    losses=(2.3, 0.5, 0.0),
    config=None,
    lines=None,
    **result,
):
    """The folder of a new run directory, as training would leave it.

    A run with `status` "unfinished" has no result.json.
    """
    experiment, _, name = row.partition(":")
    if config is None and experiment in ("table1", "table4"):
        config = rows.table_row(experiment, name)
    elif config is None:
        config = setting(experiments.defaults("training"), name)
    config.seed = config.randomize.seed = seed
    config.row, config.experiment = row, experiment
    lines = lines or [
        {"step": 390 * epoch, "epoch": epoch, "train_loss": loss}
        for epoch, loss in enumerate(losses)
    ]
    numbers = {
        "train_accuracy": train,
        "test_accuracy": test,
        "fit_step": fit_step,
        "steps": 39000,
        "epochs": 100,
    }
    if status == "diverged":  # its logits are not numbers
        numbers |= {"train_accuracy": 0.1, "test_accuracy": 0.1, "fit_step": None}
    return write(
        root / row.replace(":", "/") / f"seed_{seed}", config, lines, status, numbers | result
    )


def write(path, config, lines, status="complete", result=None):
    """The folder of a new run directory with this config, lines of metrics.jsonl and result."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(config.to_json())
    if lines:
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status != "unfinished":
        (path / "result.json").write_text(
            json.dumps(
                {
                    "row": config.row,
                    "seed": config.seed,
                    "status": status,
                    "revision": "abc",
                    "config_digest": experiments.digest(config),
                    "device": "made up",
                    "seconds": 60.0,
                    **(result or {}),
                }
            )
        )
    return path


def training_lines(last, test, epochs=20, steps=390, scale=1.0):
    """Lines of metrics.jsonl: the loss falls to `last` and test accuracy rises to `test`."""
    lines = []
    for epoch in range(epochs + 1):
        part = 1 - math.exp(-epoch * scale / 4)
        lines.append(
            {
                "step": steps * epoch,
                "epoch": epoch,
                "train_loss": 2.3 + part * (last - 2.3),
                "train_accuracy": 0.1 + 0.9 * part,
                "test_loss": 2.3 - part,
                "test_accuracy": 0.1
                + part * (test - 0.1)
                + 0.03 * math.sin(math.pi * epoch / epochs),
                "learning_rate": 0.1 * 0.95**epoch,
                "examples_per_second": 1000.0,
                "seconds": 2.0 * epoch,
            }
        )
    return lines


def everything(root, seeds=(0, 1, 2)):
    """Runs for every table and figure; some are diverged, unfinished or of another revision."""
    for seed in seeds:
        _figure1(root, seed)
        _table2(root, seed)
        _table3(root, seed)
        _workers(root, seed)
        _complexity(root, seed)
    make_run(root, "table1:alexnet+wd", status="diverged", losses=(2.3, None))
    make_run(
        root, "table1:alexnet+crop", status="unfinished", lines=training_lines(0.8, 0.6, epochs=7)
    )
    expressive = named(experiments.defaults("expressivity"), "expressivity", "cifar10")
    write(
        root / "expressivity" / "cifar10" / "seed_0",
        expressive,
        [],
        result={
            "train_error": 0.0,
            "num_points": 50_000,
            "num_weights": 103_072,
            "depth": 2,
            "width": 50_000,
            "drawing": [
                {"x": x, "point": x in (1, 2), "output": output, "units": [x, max(x - 1.125, 0)]}
                for x, output in ((0.0, 0.0), (1.0, 3.0), (1.125, 3.375), (2.0, 7.0))
            ],
        },
    )
    return root


def _figure1(root, seed):
    for number, model in enumerate(("inception", "inception_no_bn", "alexnet", "mlp_1x512")):
        best = 0.86 - 0.12 * number + 0.004 * seed
        for name in (*SETTINGS, *(f"corrupt={p / 10}" for p in range(2, 10, 2))):
            config = setting(cifar10(model), name)
            p = config.randomize.labels
            test = (
                best - p * (best - 0.1)
                if config.randomize.pixels == "none"
                else 0.1 + 0.3 * (best - 0.4)
            )
            fits = not (model == "alexnet" and name == "corrupt=0.8" and seed == 1)
            make_run(
                root,
                f"figure1:{model}+{name}",
                seed,
                config=config,
                test=test,
                train=0.998,
                fit_step=int(3900 * (1 + 2 * p * (1 + 0.1 * seed)) / (1 + number / 4))
                if fits
                else None,
                revision="abc" if seed else "def",
                lines=training_lines(0.01 * (seed + 1), test, scale=1.2 - p / 2 - number / 10),
            )


def _table2(root, seed):
    for number, row in enumerate(("aug+dropout+wd", "aug", "wd", "random_labels")):
        config = rows.EXPERIMENTS["table2"].get_config(row)
        test = 0.001 if "random" in row else 0.78 - 0.05 * number + 0.002 * seed
        lines = training_lines(0.3, test, steps=10_000)
        for line in lines[1:-1:2]:  # in the middle of an epoch only the test accuracy may be known
            del line["train_accuracy"], line["train_loss"]
        make_run(
            root,
            f"table2:{row}",
            seed,
            config=config,
            train=0.92,
            test=test,
            lines=lines,
            best_test_accuracy=test + 0.02,
            train_accuracy_top5=0.99,
            test_accuracy_top5=min(1, test + 0.15),
            best_test_accuracy_top5=min(1, test + 0.16),
        )


def _table3(root, seed):
    for filters in (1000, 4000, 16_000, 32_000):
        for ridge in ("", "+ridge"):
            config = rows.EXPERIMENTS["table3"].get_config(f"cifar10+random_conv{ridge}")
            config.features.num_filters = filters
            config.seed = config.randomize.seed = seed
            error = (0.15 if ridge else 0.17) + 60 / filters + 0.003 * seed
            write(
                root / "table3" / f"{filters}{ridge}" / f"seed_{seed}",
                config,
                [],
                result={
                    "test_error": error,
                    "train_error": 0.0,
                    "norm": 12.3,
                    "num_examples": 50_000,
                    "residual": 1e-12,
                },
            )


def _workers(root, seed):
    for workers in (1, 8, 50):
        config = cifar10("mlp_1x512")
        config.workers = workers
        make_run(
            root,
            f"figure_async:mlp_1x512+workers={workers}",
            seed,
            config=config,
            lines=training_lines(0.01 * workers, 0.5, scale=1 / (1 + workers / 40)),
        )


def _complexity(root, seed):
    for number, model in enumerate(("alexnet", "mlp_1x512")):
        config = named(experiments.defaults("complexity"), "complexity", f"rademacher+{model}")
        config.data.update(name="cifar10", num_train=1000)
        config.model.name, config.seed, config.randomize.seed = model, seed, seed
        lines = [
            {
                "num_train": n,
                "draw": draw,
                "epoch": 9,
                "correlation": 1 - number * draw * n / 40_000,
            }
            for n in (125, 250, 500, 1000)
            for draw in range(3)
        ]
        lines += [
            {
                "num_train": n,
                "closed_form": True,
                "epoch": 0,
                "linear_span": min(1, (300 / n) ** 0.5),
                "linear_ball": n**-0.5,
                **({"kernel_ball": 1.1 * n**-0.5} if n <= 1000 else {}),
            }
            for n in (125, 250, 500, 1000, 2000, 4000)
        ]
        write(
            root / "complexity" / f"rademacher+{model}" / f"seed_{seed}",
            config,
            lines,
            result={
                "rademacher": 1.0,
                "rademacher_low": 0.97,
                "rademacher_high": 1.0,
                "draws": 3,
                "num_fitted": 3,
            },
        )
    for labels in (0.0, 1.0):
        row = "stability+mlp_1x512" + "+random_labels" * bool(labels)
        config = named(experiments.defaults("complexity"), "complexity", row)
        config.data.update(name="cifar10", num_train=5000)
        config.measure, config.seed, config.randomize.labels, config.randomize.seed = (
            "stability",
            seed,
            labels,
            seed,
        )
        lines = [
            {
                "replacement": r,
                "epoch": epoch,
                "step": 157 * epoch,
                "max_change": (1 + r + labels) * epoch / 4,
                "mean_change": (1 + labels) * epoch / 400 * (1 + r / 5),
                "train_loss": 1 / (epoch + 1),
            }
            for r in range(3)
            for epoch in range(16)
        ]
        lines += [
            {
                "replacement": None,
                "epoch": epoch,
                "step": 157 * epoch,
                "max_change": 99.0,
                "mean_change": 99.0,
                "train_loss": 1 / (epoch + 1),
            }
            for epoch in range(16)
        ]
        write(
            root / "complexity" / row / f"seed_{seed}",
            config,
            lines,
            result={
                "max_change": 3.0,
                "mean_change": 0.1,
                "repeat_mean_change": 0.0,
                "train_loss": 0.06,
            },
        )


def write_page(runs, output):
    """The page alone, without the other files of a report. Returns its path."""
    output.mkdir(exist_ok=True)
    text = page.render(report.gather([runs]), output)
    (output / "index.html").write_text(text, encoding="utf-8")
    return output / "index.html"


def hostile_page(root):
    """A page of runs whose row, network, data set, revision and folder have markup for names."""
    settings = experiments.defaults("training")
    settings.model.name = settings.data.name = MARKUP
    folder = root / "<b>&quot;\n"
    file = (
        make_run(folder, "mine:row", config=settings, revision=MARKUP, device=MARKUP)
        / "config.json"
    )
    file.write_text(file.read_text().replace("mine:row", f"../mine:{MARKUP}"))
    make_run(folder, "mine:2", config=setting(settings, "random_labels"))
    (make_run(folder, "mine:true_labels") / "result.json").write_text("{")
    return write_page(folder, root / "report")
