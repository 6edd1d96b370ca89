"""Copy a recipe's model package into cdasr/bundled/NAME, with a model card made from the recipe's records.

    python tools/bundle.py exp/digits digits
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CARD = """# Model package `{name}`

This package holds a frozen CTC recogniser of English digits (wav2vec2 architecture, {recogniser_size} M
parameters), a signal process that cleans its input ({process} process, time-frequency U-Net, {signal_size} M
parameters){logits}. Audio is 16 kHz, mono.

- **Use**: `cdasr enhance-transcribe noisy.wav`, or `Pipeline.from_pretrained("{name}")`.
- **Strategies**: {strategies}. The package's own strategy is `{default}`.
- **Vocabulary**: the words zero to nine, as {talkers} say them.
- **Purpose**: a demonstration and a test bed. It is not a recogniser of general English. For your own recogniser, train
  the processes with a recipe.
- **Training**: `recipes/digits` at commit `{commit}`, on recordings 10 to 49 of the
  Free Spoken Digit Dataset (CC BY-SA 4.0) and on synthetic talkers (eSpeak NG). The weights of the processes are in
  half precision.
- **Frozen**: the recogniser was trained on clean speech only, never on noise. It has not changed since.
{domain}

## Results

{results}
"""


def main(exp_dir: str, name: str) -> int:
    from cdasr.speech.pipeline import Pipeline

    source, target = Path(exp_dir), ROOT / "cdasr" / "bundled" / name
    pipeline = Pipeline.from_pretrained(source / "package", device="cpu")
    trained = source / ("signal" if pipeline.logits is None else "coupled") / "record.json"
    record = json.loads(trained.read_text())
    results = (source / "RESULTS.md" if (source / "RESULTS.md").is_file() else ROOT / "recipes" / name / "RESULTS.md")
    sections = results.read_text(encoding="utf-8").split("\n## ")
    shown = [section.split("\n", 1)[1].strip() for section in sections
             if section.startswith(("Averages", "Coupled strategies", "Targets"))]
    shutil.rmtree(target, ignore_errors=True)
    pipeline.save_pretrained(target, half=True, by_reference=False)  # whole, also where its recogniser is elsewhere
    logits = "" if pipeline.logits is None else (
        f", and a process over its logits ({_process(pipeline.logits)} process,\n"
        f"{_millions(target / 'logits.safetensors')} M parameters) that is coupled with it")
    (target / "README.md").write_text(CARD.format(
        name=name, recogniser_size=_millions(target / "recogniser" / "model.safetensors"),
        signal_size=_millions(target / "signal.safetensors"), process=_process(pipeline.signal), logits=logits,
        strategies=", ".join(f"`{strategy}`" for strategy in pipeline.strategies), default=pipeline.default_strategy,
        talkers="six people and some synthetic voices", commit=record["commit"], results="\n\n".join(shown),
        domain=_domain(pipeline.config)),
        encoding="utf-8")
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"wrote {target.relative_to(ROOT)} ({size / 1e6:.1f} MB)")
    return 0


def _domain(config: dict) -> str:
    """How often the package's rules for input unlike its training data are wrong."""
    lines = []
    for kind, found in config.get("out_of_domain", {}).get("measured", {}).items():
        if kind != "record":
            misses = ", ".join(f"{name} {100 * rate['share']:.0f} % of {rate['items']}"
                               for name, rate in found["misses"].items())
            false = found["false_alarms"]
            lines.append(f"- **Out of domain**, `{found['strategy']}`: {100 * false['share']:.1f} % of "
                         f"{false['items']} known recordings are flagged wrongly; not flagged are {misses}.")
    return "\n".join(lines)


def _process(model) -> str:
    return model.process.name.upper()


def _millions(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        count = sum(weights.get_tensor(key).numel() for key in weights.keys())  # noqa: SIM118 (not a dict)
    return f"{count / 1e6:.1f}"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {Path(sys.argv[0]).name} EXP_DIR NAME")
    sys.exit(main(*sys.argv[1:]))
