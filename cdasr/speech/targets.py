"""The targets of recipes/digits, as its RESULTS.md lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cdasr.coupled.evaluation import Target


def targets(found) -> list[Target]:
    """The targets that could be measured; none where the recipe's `report.targets` is off."""
    if not found.hparams["report"]["targets"]:
        return []
    clean = found.classifier["clean"]
    made = [Target("recogniser: at most 3 % WER on clean strings", f"{clean['wer']:.2f} % ({clean['words']} words)",
                   clean["wer"] <= 3.0), *_enhanced(found), *_coupled(found)]
    if (extra := found.extra_errors(4, 50)) is not None:
        made.append(Target(f"{found.ablation['strategy']}: 4 + 4 steps within 1 point of 50 + 50",
                           f"{extra:+.2f} points ({found.ablation['words']} words)", extra <= 1.0))
    return made


def _enhanced(found) -> list[Target]:
    made, clean = [], found.scores["conditions"].get("clean", {})
    if "enhanced" in (unseen := _unseen(found, "15")):
        cut = 100.0 * (1.0 - unseen["enhanced"]["wer"] / unseen["none"]["wer"])
        made.append(Target("enhanced: at least 50 % fewer errors than none, unseen noise, average of 0 to 15 dB",
                           f"{cut:.1f} % fewer", cut >= 50.0))
    if "enhanced" in clean:
        change = clean["enhanced"]["wer"] - clean["none"]["wer"]
        made.append(Target("enhanced: clean WER at most 0.5 points above none", f"{change:+.2f} points",
                           change <= 0.5))
    if (factor := found.rtf.get("enhanced")) is not None:
        made.append(Target("enhanced: RTF below 0.2 on two cores, batch 1", f"{factor:.3f}", factor < 0.2))
    return made


def _coupled(found) -> list[Target]:
    """Targets of the best coupled strategy over unseen noise, 0, 5 and 10 dB."""
    unseen, clean = _unseen(found, "10"), found.scores["conditions"].get("clean", {})
    if not (present := [name for name in found.coupled if name in unseen]):
        return []
    best, made = min(present, key=lambda name: unseen[name]["wer"]), []
    for other in [name for name in ("enhanced_matched", "oa_matched") if name in unseen]:
        cut = 100.0 * (1.0 - unseen[best]["wer"] / unseen[other]["wer"])
        made.append(Target(f"{best}: at least 30 % fewer errors than {other}, unseen noise, average of 0, 5, 10 dB",
                           f"{cut:.1f} % fewer", cut >= 30.0))
    for other in [name for name in ("card", "cascade", "cascade_pretrained") if name in unseen]:
        change, p_value = unseen[best]["wer"] - unseen[other]["wer"], found.difference(unseen, best, other)[1]
        made.append(Target(f"{best}: significantly better than {other} (p < 0.05)",
                           f"{change:+.2f} points, p {p_value:.4f}", change < 0 and p_value < 0.05))
    if "retrained" in unseen:
        change, p_value = unseen[best]["wer"] - unseen["retrained"]["wer"], found.difference(
            unseen, best, "retrained")[1]
        made.append(Target(f"{best}: not worse than retrained", f"{change:+.2f} points, p {p_value:.4f}", change <= 0))
    change = clean[best]["wer"] - clean["none"]["wer"] if best in clean else None
    made.append(Target(f"{best}: clean WER at most 0.2 points above none",
                       "not decoded" if change is None else f"{change:+.2f} points",
                       None if change is None else change <= 0.2))
    if (factor := found.rtf.get("parallel")) is not None:
        made.append(Target("parallel: RTF at most 0.3 on two cores, batch 1", f"{factor:.3f}", factor <= 0.3))
    return made


def _unseen(found, last: str) -> Mapping:
    """The scores over unseen noise, averaged up to the SNR `last`; empty where there are none."""
    title = next((title for title in found.averaged if re.fullmatch(rf"unseen noise, .*\b{last} dB", title)), None)
    return found.averaged.get(title, {})
