"""What each stage of converting a network for chips buys: tuned on held-out data, then compared.

    python benchmarks/pipeline.py tune --out runs [--networks lenet,vgg6] [--jobs 2]
    python benchmarks/pipeline.py suite
    spikewvat bench pipeline --out runs --results benchmarks/results/pipeline

The first command tries equally many settings of every way to train the ANN and to fine-tune the
spiking network, with a part of the training data that was held out, on a seed and on chips that the
comparison does not use. The mean accuracy on chips of both sizes decides. Plain trainings try
learning rates; those under noise try two strengths, at the learning rate that was the best without
and at half of it. Fine-tuning tries learning rates, on the ANN of plain training. The second
command writes the suite of the best settings; of a network that was not tuned, the second ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

from spikewvat import files
from spikewvat.lab.suites import Row, Setup, Suite, jobs_of, run_suite
from spikewvat.lab.suites.suite import FILE, suites_folder
from spikewvat.provenance import provenance
from spikewvat.results import RowResult
from spikewvat.serialisation import read_json, write_json

FOLDER = suites_folder() / "pipeline"
TUNED = Path(__file__).parent / "results" / "pipeline" / "tuned.json"
NETWORKS = {"lenet": "LeNet on MNIST", "vgg6": "VGG-6 on CIFAR-10"}
RATES = (0.025, 0.05, 0.1, 0.2)
GAMMAS, SHARES = (0.25, 0.75), (0.5, 1.0)
"""Strengths of the noise, and shares of the best learning rate without noise."""
FINE_RATES = (2e-5, 1e-4, 5e-4, 2e-3)
ALPHA = {"lenet": 0.1, "vgg6": 0.01}
"""Length of the worst perturbation: as published for either data set."""
_NOISE = ("method.device=gaussian:sigma=0.1",)
_LEVELS = ("model.levels=4",)
TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "sgd": ("SGD", ()),
    "hsv": ("HSV", ("method.name=hsv", *_NOISE)),
    "wvat": ("WVAT", ("method.name=wvat", *_NOISE)),
    "qcfs": ("QCFS", _LEVELS),
    "qcfs_wvat": ("QCFS under WVAT", (*_LEVELS, "method.name=wvat", *_NOISE)),
}
PLAIN = {"hsv": "sgd", "wvat": "sgd", "qcfs_wvat": "qcfs"}
"""The training without noise whose learning rate another one takes."""
CONVERSIONS = {
    "": "ANN",
    "t4": "T = 4",
    "t8": "T = 8",
    "stdb": "T = 4, STDB",
    "stdb_wvat": "T = 4, STDB under WVAT",
}
FINE = ("stdb", "stdb_wvat")
CALIBRATED = {
    False: "evaluation.calibrate=bias-trim:samples=64",
    True: "evaluation.calibrate=conversion-trim:samples=64",
}
"""What is done to the chips of ANNs and of converted networks, after a test as programmed."""
TUNING = (
    "evaluation.split=validation",
    *("evaluation.seed=100", "evaluation.chips=4", "evaluation.images=1000"),
)
SHORTER = {
    "lenet": ("training.epochs=3",),
    "vgg6": ("training.epochs=4", "data.limit=20000"),
}
"""What to tune on."""
TUNING_SEED, SEEDS = 100, (0, 1, 2)

Tuned = dict[str, Any]


def row(network: str, training: str, conversion: str, name: str, *overrides: str) -> Row:
    """Return a row of a network."""
    return Row(
        method=TRAININGS[training][0],
        recipe=f"{network}.toml",
        name=name,
        conversion=conversion or None,
        overrides=(*fixed(network, training), *overrides),
    )


def fixed(network: str, training: str) -> tuple[str, ...]:
    """Return what makes a training, without what is tuned."""
    overrides = TRAININGS[training][1]
    worst = (f"method.alpha={ALPHA[network]}",) if "method.name=wvat" in overrides else ()
    return (*overrides, *worst)


def settings(network: str, stage: str, tuned: Tuned) -> list[tuple[str, ...]]:
    """Return the settings to try of a training, or of fine-tuning."""
    if stage in FINE:
        return [(f"conversion.finetune.lr={rate}",) for rate in FINE_RATES]
    if stage in PLAIN:
        rate = float(best(network, PLAIN[stage], tuned)[0].partition("=")[2])
        return [
            (f"training.lr={share * rate:g}", f"method.gamma={gamma}")
            for share in SHARES
            for gamma in GAMMAS
        ]
    return [(f"training.lr={rate}",) for rate in RATES]


def tune(network: str, out: Path, *, jobs: int, data_root: Path | None) -> None:
    """Try all settings of a network, and write what they reach to ``TUNED``."""
    tuned: Tuned = {}
    shorter = SHORTER[network]
    for trainings in (set(TRAININGS) - set(PLAIN), set(PLAIN)):
        tried = {
            (training, chosen): row(
                network, training, "", f"{network}-{training}-{i}", *chosen, *TUNING, *shorter
            )
            for training in TRAININGS
            if training in trainings
            for i, chosen in enumerate(settings(network, training, tuned))
        }
        tuned |= _tried(tried, out, jobs, data_root)
    start = best(network, "sgd", tuned)
    tried = {
        (fine, chosen): row(
            network, "sgd", fine, f"{network}-{fine}-{i}", *start, *chosen, *TUNING, *shorter
        )
        for fine in FINE
        for i, chosen in enumerate(settings(network, fine, tuned))
    }
    tuned |= _tried(tried, out, jobs, data_root)
    write_json(TUNED, {**read_tuned(), network: {**provenance(), "stages": tuned}})


def _tried(
    tried: dict[tuple[str, tuple[str, ...]], Row], out: Path, jobs: int, data_root: Path | None
) -> Tuned:
    """Run rows, and return their scores by stage."""
    suite = Suite(
        title="Tuning",
        seeds={},
        setups=(Setup(name="tuning", rows=tuple(tried.values())),),
        folder=FOLDER,
    )
    found = run_suite(
        jobs_of(suite, preset=None, seeds=(TUNING_SEED,)), out, processes=jobs, data_root=data_root
    )
    lost = {job.row: failure.message for job, failure in found.failed}
    scores: Tuned = {}
    for (stage, chosen), one in tried.items():
        reached = (
            {"score": 0.0, "failed": lost[one.name]}
            if one.name in lost
            else scored(found.rows[one.name])
        )
        scores.setdefault(stage, []).append({"settings": list(chosen), **reached})
        print(stage, *chosen, reached, flush=True)
    return scores


def scored(result: RowResult) -> dict[str, Any]:
    """Return what a setting reaches."""
    (curve,) = result.curves
    return {"clean": curve.clean, "on_chips": list(curve.means), "score": fmean(curve.means)}


def read_tuned() -> Tuned:
    """Return what :func:`tune` has written, by network."""
    return read_json(TUNED) if TUNED.is_file() else {}


def best(network: str, stage: str, tuned: Tuned) -> tuple[str, ...]:
    """Return the settings of a stage with the highest score, the second ones without scores."""
    if stage not in tuned:
        return settings(network, stage, tuned)[1]
    return tuple(max(tuned[stage], key=lambda one: float(one["score"]))["settings"])


def write_suite() -> None:
    """Write the suite of the best settings."""
    setups = []
    for network, title in NETWORKS.items():
        tuned = read_tuned().get(network, {"stages": {}})["stages"]
        for conversion, label in CONVERSIONS.items():
            fine = best(network, conversion, tuned) if conversion in FINE else ()
            rows = tuple(
                row(
                    network,
                    training,
                    conversion,
                    "-".join(filter(None, (network, training, conversion))),
                    *best(network, training, tuned),
                    *fine,
                    CALIBRATED[bool(conversion)],
                )
                for training in TRAININGS
            )
            setups.append(Setup(name=f"{title}, {label}", rows=rows))
    suite = Suite(
        title="Stages of a conversion for chips",
        seeds={"quick": SEEDS, "paper": SEEDS},
        setups=tuple(setups),
        published=False,
    )
    content = suite.model_dump(mode="json", exclude_defaults=True, exclude={"folder"})
    files.write_toml(FOLDER / FILE, content)
    print(f"Written: {FOLDER / FILE}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=("tune", "suite"))
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--data-root", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "suite":
        write_suite()
        return
    for network in arguments.networks.split(","):
        if network not in NETWORKS:
            parser.error(f"no network {network!r}. Choose from {', '.join(NETWORKS)}.")
        tune(network, arguments.out, jobs=arguments.jobs, data_root=arguments.data_root)


if __name__ == "__main__":
    main()
