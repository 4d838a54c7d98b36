"""What becomes of small networks of many kinds: converted, refused, or wrong without a word.

    python benchmarks/convertible.py

The networks are those of ``tests/conversion_networks.py``, with random weights. The error is the
root mean square of the scores' difference from the ANN after 256 steps, relative to the scores'
own; SpikingJelly's ``ann2snn`` converts the same networks with thresholds at 99.9 % of each
channel, and at half a threshold.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import ann2snn
from spikingjelly.activation_based.ann2snn.recipes import RateCodingRecipe
from torch import Tensor, nn

from spikewvat import adapter_for
from spikewvat.conversion import convert
from spikewvat.errors import UnsupportedModelError
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from conversion_networks import NETWORKS, made

STEPS, WRONG = 256, 0.1


def ours(ann: nn.Module, images: Tensor, options: dict[str, Any]) -> Tensor:
    """Return the scores after all steps."""
    return convert(ann, [images], time_steps=STEPS, **options)(images)


def jelly(ann: nn.Module, images: Tensor) -> Tensor:
    """Return SpikingJelly's."""
    recipe = RateCodingRecipe([(images,)], mode="99.9%", channel_wise=True, half_threshold=True)
    net = ann2snn.Converter(recipe).convert(copy.deepcopy(ann)).eval()
    adapter_for(net).reset_state(net)
    total = net(images)
    for _ in range(STEPS - 1):
        total = total + net(images)
    return total / STEPS


@torch.no_grad()
def outcome(scores: Callable[[], Tensor], expected: Tensor) -> dict[str, Any]:
    """Return the error of the scores, or why there are none."""
    try:
        found = scores()
    except UnsupportedModelError as error:
        return {"refused": str(error)}
    except Exception as error:  # whatever the peer raises
        return {"refused": f"{type(error).__name__}: {error}"[:200]}
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    return {"error": round(float(error), 5)}


def _word(row: dict[str, Any]) -> str:
    if "refused" in row:
        return "refused"
    return f"{row['error']:.4f}" + ("  WRONG" if not row["error"] <= WRONG else "")


def main() -> None:
    """Convert, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    out = Path(__file__).parent / "results" / "conversion" / "convertible.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.rand(32, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    rows = []
    for name, case in NETWORKS.items():
        ann = made(name)
        with torch.no_grad():
            expected = ann(images)
        row = {
            "network": name,
            "ours": outcome(partial(ours, ann, images, dict(case.options)), expected),
            "ann2snn": outcome(partial(jelly, ann, images), expected),
        }
        rows.append(row)
        print(f"{name:<34} ours {_word(row['ours']):<16} ann2snn {_word(row['ann2snn'])}")
    counts = {
        side: {
            "converted": sum(r[side].get("error", 1) <= WRONG for r in rows),
            "refused": sum("refused" in r[side] for r in rows),
            "wrong": sum(not r[side].get("error", 0) <= WRONG for r in rows),
        }
        for side in ("ours", "ann2snn")
    }
    print(counts)
    content = {"recipe": "benchmarks/convertible.py", "steps": STEPS, "counts": counts}
    write_json(arguments.out, {**content, **provenance(), "rows": rows})


if __name__ == "__main__":
    main()
