"""What each part of the coupling is worth: one strategy with parts taken away, or with the answer given (oracle)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from cdasr.classifiers.logits import Logits
from cdasr.coupled.domain import Domain
from cdasr.coupled.models import CoupledRun
from cdasr.coupled.pipeline import Batch, CoupledPipeline, Outcome
from cdasr.evaluation.statistics import bootstrap, interval, rate_interval
from cdasr.evaluation.tuning import ITEMS, Rows, batches_of


@torch.inference_mode()
def ablate(pipeline: CoupledPipeline, rows: Rows, strategy: str, steps: Sequence[int], guidance: Sequence[float],
           items: int = ITEMS, domain: Domain | None = None) -> dict:
    """Error rates over `rows` of variants of one coupled strategy; "": the package's.

    Variants: as the package runs it; other numbers of `steps` for both processes; other `guidance` weights (0: the
    signal process is not given the logits); a logits process that does not see the enhanced signal; and the oracle, a
    signal process that is given C(x0), where all rows have a clean signal. `difference`: interval of the difference to
    the first, in points, paired. `domain`: how errors are counted; by default as the pipeline's does.
    """
    domain = domain or pipeline.domain
    strategy, read_clean = strategy or pipeline.default_strategy, pipeline.domain.evaluation.read_clean
    batches = batches_of(pipeline, rows, items)

    def clean(batch: Batch, group: Rows) -> Batch:
        return pipeline.batch([read_clean(row, pipeline.classifier, noisy) for row, noisy in zip(group, batch.rows())])

    def run(**options):
        return lambda batch, group: pipeline.run(batch.rows(), strategy, **options)[0]
    variants = {f"{strategy}, as the package runs it": run()}
    variants |= {f"{strategy}, {count} + {count} steps": run(steps=count) for count in steps}
    variants |= {"logits to signal: off" if weight == 0 else f"guidance {weight:g}": run(guidance=weight)
                 for weight in guidance}
    variants["signal to logits: off"] = lambda batch, group: _conditioned(pipeline, batch, None)

    def oracle(batch: Batch, group: Rows) -> Outcome:
        return _conditioned(pipeline, batch, clean(batch, group))
    if all(_has_clean(pipeline, batch, group) for batch, group in batches):
        variants["oracle: signal told C(x0)"] = oracle

    found, rate, first = [], pipeline.domain.rate, None
    for name, variant in variants.items():
        outcomes = [(variant(batch, group), group) for batch, group in tqdm(batches, desc=f"ablation: {name}")]
        errors, counted = _errors(pipeline, domain, [(outcome.logits, group) for outcome, group in outcomes])
        made = [(outcome.enhanced_logits, group) for outcome, group in outcomes if outcome.enhanced_logits is not None]
        enhanced = 100.0 * float(_errors(pipeline, domain, made)[0].sum() / counted.sum()) if made else None
        first = errors if first is None else first
        draws = bootstrap([(np.stack([errors, first]), counted)])
        found.append({"variant": name, rate: (share := 100.0 * float(errors.sum() / counted.sum())),
                      "interval": rate_interval(draws[:, 0], share, float(counted.sum())),
                      "difference": interval(draws[:, 0] - draws[:, 1]),
                      f"{rate}_enhanced": enhanced, "nfe": outcomes[0][0].evaluations})
    return {"strategy": strategy, "variants": found, pipeline.domain.evaluation.counted: int(counted.sum()),
            "utterances": len(counted)}


def _has_clean(pipeline: CoupledPipeline, batch: Batch, group: Rows) -> bool:
    """Whether all rows of a batch have a clean signal: real noisy recordings have none."""
    read = pipeline.domain.evaluation.read_clean
    return all(read(row, pipeline.classifier, noisy) is not None for row, noisy in zip(group, batch.rows()))


def _errors(pipeline: CoupledPipeline, domain: Domain,
            answers: Sequence[tuple[Logits, Rows]]) -> tuple[np.ndarray, np.ndarray]:
    """Errors of each item, and what they are counted against."""
    counts = [count for logits, group in answers for count in domain.errors(
        pipeline.classifier, logits, [row[domain.truth] for row in group])]
    errors, counted = np.array(counts).T
    return errors, counted


def _conditioned(pipeline: CoupledPipeline, batch: Batch, clean: Batch | None) -> Outcome:
    """The signal process conditioned on one thing throughout: C of `clean`, or else the logits of `card`.

    With `clean` signals the answer is that of the logits process, given C of the resulting signal; else that of `card`.
    """
    run = CoupledRun(pipeline.classifier, pipeline.signal, pipeline.logits, batch.signals, batch.lengths)
    noisy_obs = run.observe(run.signal.y)
    logits = run.start_logits(noisy_obs)
    if clean is None:
        condition = logits.sample(given=noisy_obs)
    else:
        known = pipeline.classifier(clean.signals, clean.lengths, like=noisy_obs.context)
        condition = pipeline.logits.observation(known).logits
    enhanced_obs = run.observe(run.signal.sample(given=condition))
    answer = condition if clean is None else logits.sample(given=enhanced_obs)
    answer = run.answer(answer, (noisy_obs if clean is None else enhanced_obs).context)
    return Outcome(answer, enhanced_logits=enhanced_obs.context.redecode(), nfe=run.nfe)
