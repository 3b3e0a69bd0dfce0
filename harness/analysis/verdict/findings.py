"""A verdict in numbers: each candidate's answer, errors, comparison with the baseline, and cost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from harness.analysis.verdict import statistics
from harness.analysis.verdict.statistics import Differences, Floats, Labels, Wrong
from harness.analysis.verdict.trainings import Answer, Trainings, configurations, max_seeds
from harness.ledger.ledger import Ledger
from harness.study.formatting import in_precision
from harness.study.records import Outcome, Scalar
from harness.study.spec import SweepSpec
from harness.support.intervals import error_rate_interval_pct


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Errors:
    """Errors on the test images, percent.

    Attributes:
        by_seed_pct: Errors in the order of the seeds.
        mean_pct: Mean over seeds.
        sd_pct: Standard deviation between seeds.
        worst_pct: Error of the worst seed.
        wilson_pct: 95 % interval of the mean over other images, the seeds taken as given.
        bootstrap_pct: 95 % interval of the mean over other seeds and other images.
    """

    by_seed_pct: tuple[float, ...]
    mean_pct: float
    sd_pct: float
    worst_pct: float
    wilson_pct: Interval
    bootstrap_pct: Interval


@dataclass(frozen=True)
class Cost:
    """The cost of a training, mean over seeds.

    Attributes:
        device_time_s: Seconds of the training region.
        gpu_time_s: GPUs reserved times these seconds; 0 without a GPU.
        num_params: Parameters of the network.
        flops_per_image: Operations of one forward pass; None for a network of a user's own that was never run here.
        timing_classes: Timing classes of the times.
    """

    device_time_s: float
    gpu_time_s: float
    num_params: int
    flops_per_image: int | None
    timing_classes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A candidate against the baseline; differences in percentage points of test error, negative is better.

    Attributes:
        points: Difference of the means.
        corrected: Simultaneous 95 % interval of `points` for all candidates and looks.
        p_value: p-value of `points` over other seeds and images, corrected for candidates and looks: the decisive one.
        paired: 95 % interval of `points` by Student's paired t on the seeds, for fixed images; not corrected.
        paired_p_value: p-value of the same test.
        probability_of_improvement: Probability that a training of the candidate has a lower error than one of the
            baseline.
        mcnemar_p_values: By seed; not corrected.
        mcnemar_pooled_p_value: One vote per image; not corrected.
        device_time_ratio: Candidate's over baseline's; None if their times cannot be compared.
        num_seeds_needed: The first look after this one whose interval would exclude 0 if difference and spread stayed
            as they are (`statistics.seeds_to_show`); None: no look's would.
    """

    points: float
    corrected: Interval
    p_value: float
    paired: Interval
    paired_p_value: float
    probability_of_improvement: float
    mcnemar_p_values: tuple[float, ...]
    mcnemar_pooled_p_value: float
    device_time_ratio: float | None
    num_seeds_needed: int | None

    def says_something(self, baseline: Errors) -> bool:
        """Whether the interval is narrow enough to be of use: its reach to each side is no more than the error itself.

        After three seeds it often reaches further than any error can lie.
        """
        return self.corrected.high - self.corrected.low <= 2 * baseline.mean_pct


@dataclass(frozen=True)
class Configuration:
    """The baseline or a candidate.

    Attributes:
        trial: Number of the candidate in its study; None: the baseline.
        params: Its hyperparameters.
        answer: Its answer; None: the baseline.
        failures: One line for each training that failed.
        errors, cost: None before the first look, or if a training failed.
        comparison: The same, and None for the baseline.
    """

    trial: int | None
    params: dict[str, Scalar]
    answer: Answer | None
    failures: tuple[str, ...]
    errors: Errors | None = None
    cost: Cost | None = None
    comparison: Comparison | None = None

    @property
    def name(self) -> str:
        return "baseline" if self.trial is None else f"trial {self.trial}"


@dataclass(frozen=True)
class Verdict:
    """A study's best trials against its baseline.

    Attributes:
        study: The searched study.
        answer: The answer for all candidates together.
        baseline: The documented configuration.
        candidates: In the order of the study's ranking.
        seeds: Seeds of the answer.
        num_planned: Maximum number of seeds.
        num_test_reads: Number of models that were evaluated on the test images.
        epochs, train_images, test_images, dataset, precision: Settings of each training and test.
    """

    study: str
    answer: Answer
    baseline: Configuration
    candidates: tuple[Configuration, ...]
    seeds: tuple[int, ...]
    num_planned: int
    num_test_reads: int
    epochs: int
    train_images: int
    test_images: int
    dataset: str
    precision: str

    @property
    def trained(self) -> str:
        """The settings of each training, in words."""
        return f"{self.epochs} epochs on {self.train_images:,} images{in_precision(self.precision)}"

    @property
    def best(self) -> Configuration | None:
        """The candidate with the lowest error among those with the overall answer; None if there is none."""
        rated = [(one.errors.mean_pct, one) for one in self.candidates if one.answer is self.answer and one.errors]
        return min(rated, key=lambda pair: pair[0])[1] if rated else None


def find_verdict(ledger: Ledger, spec: SweepSpec) -> Verdict:
    """Reads the present state of a verdict, the study with these settings."""
    ended = ((record.trial, record.result) for record in ledger.finished(spec.study))
    trainings = Trainings.of(spec, ((trial, result) for trial, result in ended if result))
    baseline, *candidates = _Findings(trainings).configurations()
    return Verdict(
        study=spec.about,
        answer=trainings.answer,
        baseline=baseline,
        candidates=tuple(candidates),
        seeds=tuple(trainings.seeds),
        num_planned=max_seeds(spec),
        num_test_reads=ledger.num_test_reads(spec.study),
        epochs=spec.epochs,
        train_images=spec.train_images,
        test_images=trainings.num_images,
        dataset=spec.dataset,
        precision=spec.precision,
    )


class _Findings:
    """Computes the numbers of the configurations from their trainings."""

    def __init__(self, trainings: Trainings) -> None:
        self._spec, self._trainings = trainings.spec, trainings
        self._rows = {position: row for row, position in enumerate(trainings.compared)} if trainings.num_seeds else {}
        if self._rows:
            self._wrong: Wrong = trainings.wrong()
            self._rates_pct: Floats = 100 * self._wrong.sum(-1) / trainings.num_images
            self._differences: Differences = statistics.differences(self._wrong, trainings.num_images)
            self._needed = statistics.seeds_to_show(self._differences, trainings.num_seeds, len(self._rows) - 1)
            self._labels: Labels = statistics.labels(self._wrong, trainings.num_images)

    def configurations(self) -> list[Configuration]:
        answers = [None, *self._trainings.answers]
        return [
            self._configuration(position, dict(params), answer)
            for position, (params, answer) in enumerate(zip(configurations(self._spec), answers, strict=True))
        ]

    def _configuration(self, position: int, params: dict[str, Scalar], answer: Answer | None) -> Configuration:
        row = self._rows.get(position)
        return Configuration(
            trial=self._spec.confirmed_trial(params),
            params=params,
            answer=answer,
            failures=tuple(_failures(self._trainings, position)),
            errors=None if row is None else self._errors(row),
            cost=None if row is None else self._cost(position),
            comparison=self._comparison(row, position) if row else None,
        )

    def _errors(self, row: int) -> Errors:
        rates, num_images = self._rates_pct[row], self._trainings.num_images
        mean_pct = float(rates.mean())
        return Errors(
            tuple(rates.tolist()),
            mean_pct,
            float(rates.std(ddof=1)),
            float(rates.max()),
            Interval(*error_rate_interval_pct(mean_pct, num_images)),
            Interval(*statistics.bootstrap_interval_pct(self._wrong[row], num_images)),
        )

    def _cost(self, position: int) -> Cost:
        spec, by_seed = self._spec, self._trainings.results[position]
        results = [by_seed[seed] for seed in self._trainings.seeds]
        cost = spec.cost(configurations(spec)[position]) if spec.has_code else None
        return Cost(
            fmean(result.train_time_s for result in results),  # they continue no other trial
            fmean(result.gpu_train_time_s for result in results),
            next(
                (result.num_params for result in results if result.num_params is not None),
                cost.num_params if cost else 0,
            ),
            cost.flops_per_image if cost else None,
            tuple(sorted({result.device.timing_class for result in results if result.device})),
        )

    def _comparison(self, row: int, position: int) -> Comparison:
        candidate, baseline = self._wrong[row], self._wrong[0]
        mine, theirs = self._cost(position), self._cost(0)
        is_one_class = len({*mine.timing_classes, *theirs.timing_classes}) == 1
        time_ratio = mine.device_time_s / theirs.device_time_s if is_one_class and theirs.device_time_s else None
        confidence = statistics.corrected_confidence(len(self._rows) - 1, self._trainings.num_seeds)
        low, high = self._differences.interval(confidence)
        paired = statistics.paired_difference(self._rates_pct[row], self._rates_pct[0])
        return Comparison(
            points=float(self._differences.points[row - 1]),
            corrected=Interval(float(low[row - 1]), float(high[row - 1])),
            p_value=float(self._labels.p_value[row - 1]),
            paired=Interval(paired.low, paired.high),
            paired_p_value=paired.p_value,
            probability_of_improvement=statistics.probability_of_improvement(self._rates_pct[row], self._rates_pct[0]),
            mcnemar_p_values=tuple(map(statistics.mcnemar, candidate, baseline)),
            mcnemar_pooled_p_value=statistics.mcnemar_pooled(candidate, baseline),
            device_time_ratio=time_ratio,
            num_seeds_needed=self._needed[row - 1],
        )


def _failures(trainings: Trainings, position: int) -> list[str]:
    return [
        f"seed {seed}: {result.outcome.replace('_', ' ')}" + (f" ({result.error})" if result.error else "")
        for seed, result in sorted(trainings.results[position].items())
        if result.outcome is not Outcome.COMPLETED
    ]
