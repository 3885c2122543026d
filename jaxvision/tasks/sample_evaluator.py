"""Evaluation by samples: a grid, distances, what a classifier sees."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxvision.data.cache import directory as cache_directory
from jaxvision.data.dataset import Dataset
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.inference.extractors import find_classifier, find_extractor
from jaxvision.metrics import generative
from jaxvision.metrics.feature_extractors import FeatureExtractor
from jaxvision.reports import image_grid
from jaxvision.training import processes
from jaxvision.training.evaluation import (
  FinalEvaluation,
  SplitEvaluator,
  check_split,
  data_notes,
)
from jaxvision.training.logging import describe, warn
from jaxvision.training.sampler import Sampler

_GRID = 64  # samples of the same noise, drawn at every evaluation
_ROWS, _COLUMNS = 6, 10  # of interpolation
_EXAMINED, _NEIGHBOURS = 8, 5  # samples beside their nearest training images

# What summary.json says of samples, null where it was not measured.
_MEASURES = (
  'kid',
  'kid_std',
  'inception_score',
  'precision',
  'recall',
  'density',
  'coverage',
  'protocol',
  'class_confidence',
  'class_shares',
  'classifier',
)


@dataclasses.dataclass(frozen=True)
class SampleExtractors:
  """The networks that samples are measured with, either of which may be missing.

  Attributes:
    features: whose features the distances are between.
    classifier: which says what classes are drawn.
  """

  features: FeatureExtractor | None
  classifier: FeatureExtractor | None

  @classmethod
  def of(cls, config: ConfigDict, info: DatasetInfo) -> 'SampleExtractors':
    """Returns the networks that the config names; raises UserError if they do not fit."""
    wanted, shape = config.evaluation, info.image_shape
    features = classifier = None
    if wanted.features:
      field = 'evaluation.features'
      features = find_extractor(wanted.features, wanted.resizer, shape, field)
      if wanted.reference not in info.examples:
        raise UserError(
          f'evaluation.reference: there is no {wanted.reference} split of {info.name}: '
          f'take one of {", ".join(info.examples)}'
        )
    if wanted.classifier:
      classifier = find_classifier(wanted.classifier, shape, 'evaluation.classifier')
    elif features and features.class_names:
      classifier = features
    return cls(features, classifier)


class SampleEvaluator:
  """A `RunEvaluator` by samples: a grid of the same noise each time, and distances.

  Args:
    run: the run, of a `GenerativeTask`.
    dataset: as loaded.
    state: whose shapes the programs are compiled for.
    held_out: whether the task's `eval_step` measures the validation split, or the test
      split where there is none.
  """

  split = 'samples'

  def __init__(self, run: Any, dataset: Dataset, state: Any, held_out: bool = False):
    self._run, self._config, self._dataset = run, run.config, dataset
    self._extractors = run.task.extractors
    self._sampler = Sampler(run, state.eval_variables, run.config.eval_batch_size)
    self._cache = cache_directory(run.config.data.cache_dir) / 'statistics'
    self.final_split = run.config.evaluation.reference
    self._noise = self._sampler.noise(_GRID, run.config.seed)
    real = [dataset.splits['train'][i][0] for i in self._spread()]
    self._real_diversity = generative.diversity(np.stack(real))
    self._drawn: np.ndarray | None = None
    self._statistics: dict[str, generative.FeatureStatistics] = {}
    self._warned: set[str] = set()
    self._state = state
    self._splits: dict[str, SplitEvaluator] = {}
    there = [split for split in ('validation', 'test') if split in dataset.splits]
    self._held_out = there[0] if held_out and there else ''

  def compile(self) -> None:
    """Starts to compile what measures held-out images; the sampler is compiled already."""
    if self._held_out:
      self._of(self._held_out)

  def _of(self, split: str) -> SplitEvaluator:
    check_split(self._dataset, split)
    if split not in self._splits:
      source, pipeline = self._dataset.splits[split], self._dataset.pipeline
      self._splits[split] = SplitEvaluator(self._run, source, pipeline, self._state)
    return self._splits[split]

  def _spread(self) -> list[int]:
    count = len(self._dataset.splits['train'])
    return np.linspace(0, count - 1, min(_GRID, count)).astype(int).tolist()

  def _real(self, split: str) -> generative.FeatureStatistics:
    if split not in self._statistics:
      source = self._dataset.splits[split]
      self._statistics[split] = generative.split_statistics(
        self._extractors.features, source, split, self._cache
      )
    return self._statistics[split]

  def _fake(
    self, extractor: FeatureExtractor, variables: Any, count: int
  ) -> generative.FeatureStatistics:
    batches = self._sampler.batches(variables, count, self._config.seed)
    return generative.compute_statistics(extractor, batches, count, 'samples')

  def _grid(self, state: Any) -> np.ndarray:
    labels = self._sampler.labels(_GRID)
    return self._sampler.images(state.eval_variables, self._noise, labels)

  def measure(self, state: Any) -> dict[str, float]:
    """Draws the grid and, on a few samples, measures; warns of what goes wrong."""
    samples = self._grid(state)
    step = int(state.step)
    folder = self._run.directory.samples
    self._drawn = image_grid.grid(samples)
    if processes.is_writer():
      folder.mkdir(exist_ok=True)
      image_grid.save_png(folder / image_grid.frame_name(step), self._drawn)
    values = {'diversity': generative.diversity(samples) / self._real_diversity}
    self._warn(step, values['diversity'])
    if self._held_out:
      values |= self._of(self._held_out).measure(state)[0]
    wanted, extractors = self._config.evaluation, self._extractors
    count, variables = wanted.samples_while_training, state.eval_variables
    if not count:
      return values
    fake = None
    if extractors.features:
      fake = self._fake(extractors.features, variables, count)
      real = self._real(wanted.reference)
      scores = generative.compute_scores(
        extractors.features, fake, real, manifolds=False
      )
      values |= {'fd': scores.value, 'kid': scores.kid, 'samples': count}
    if extractors.classifier:
      if extractors.classifier is not extractors.features:
        fake = self._fake(extractors.classifier, variables, count)
      values['confidence'] = float(fake.probabilities.max(1).mean())
    return values

  def picture(self) -> np.ndarray | None:
    """Returns the grid that the last `measure` drew, enlarged."""
    if self._drawn is None:
      return None
    scale = image_grid.fitting_scale(self._drawn.shape[1])
    return image_grid.enlarged(self._drawn, scale)

  def _warn(self, step: int, diversity: float) -> None:
    """Warns once of each thing that goes wrong."""
    now = {'step': step, 'split': self.split, 'diversity': diversity}
    for name, text in self._diagnosis(now).items():
      if name not in self._warned:
        self._warned.add(name)
        warn(text)

  def _diagnosis(self, *more: dict[str, Any]) -> dict[str, str]:
    return self._run.task.diagnose([*self._run.directory.history(), *more])

  def scores(
    self, state: Any, split: str | None = None
  ) -> tuple[generative.Scores | None, generative.FeatureStatistics | None]:
    """Measures on `evaluation.samples`: the distances, and what the classifier saw."""
    wanted, extractors = self._config.evaluation, self._extractors
    variables, fake, scores = state.eval_variables, None, None
    if extractors.features:
      fake = self._fake(extractors.features, variables, wanted.samples)
      floor = None
      splits = self._dataset.splits
      if {'train', 'test'} <= splits.keys() and splits['train'] is not splits['test']:
        train, test = self._real('train'), self._real('test')
        floor = generative.frechet_distance(train.moments, test.moments)
      real = self._real(split or wanted.reference)
      scores = generative.compute_scores(extractors.features, fake, real, floor=floor)
    if extractors.classifier and extractors.classifier is not extractors.features:
      fake = self._fake(extractors.classifier, variables, wanted.samples)
    return scores, fake if extractors.classifier else None

  def final(self, state: Any, split: str | None = None) -> FinalEvaluation:
    """Measures in full and draws what the report shows.

    Args:
      state: of the run.
      split: that samples are measured against; None: `evaluation.reference`.
    """
    scores, seen = self.scores(state, split)
    values: dict[str, Any] = dict.fromkeys(_MEASURES)
    measured = scores.as_json() if scores else {}
    values |= {name: measured.get(name) for name in _MEASURES if name in measured}
    values |= {
      'fid': measured['value'] if scores and scores.name == 'FID' else None,
      'fd': measured.get('value'),
      'fd_name': measured.get('name'),
      'fd_floor': measured.get('floor'),
    }
    lines = [scores.line()] if scores else []
    if seen:
      counts = class_counts(seen)
      confidence = float(seen.probabilities.max(1).mean())
      values |= {
        'class_confidence': confidence,
        'class_shares': (counts / counts.sum()).tolist(),
        'classifier': self._extractors.classifier.weights,
      }
      lines.append(f'confidence {confidence:.1%}')
    if self._held_out and 'test' in self._dataset.splits:
      measured, _ = self._of('test').measure(state)
      values |= {f'test_{name}': value for name, value in measured.items()}
      lines.append(f'test: {describe(measured)}')
    line = '  '.join(lines)
    return FinalEvaluation(
      values=values,
      line=line or f'{_GRID} samples drawn; evaluation.features measures them',
      write_report=self._reporter(state, scores, seen),
      result=values,
    )

  def _reporter(
    self,
    state: Any,
    scores: generative.Scores | None,
    seen: generative.FeatureStatistics | None,
  ) -> Callable[..., Path]:
    """Returns what writes the report, see `FinalEvaluation`.

    All that the devices compute for it is computed here: of several processes, one writes.
    """
    samples = self._grid(state)
    interpolation = self._sampler.interpolation(
      state.eval_variables, _ROWS, _COLUMNS, self._config.seed
    )

    def write(summary: dict[str, Any], directory: Path | None = None) -> Path:
      from jaxvision.reports.samples import report  # matplotlib: once there is a result

      train = self._dataset.splits['train']
      few = samples[:_EXAMINED]
      where, distances = generative.nearest(few, train, _NEIGHBOURS)
      neighbours = [
        report.Neighbour(
          image,
          tuple(np.asarray(train[int(i)][0]) for i in indices),
          tuple(map(float, far)),
        )
        for image, indices, far in zip(few, where, distances)
      ]
      opinion = None
      if seen:
        confidences = seen.probabilities.max(1)
        opinion = report.SampleClasses(
          self._extractors.classifier.weights,
          class_counts(seen),
          float(confidences.mean()),
          confidences,
          self._extractors.classifier.class_names,
        )
      return report.write_generation_report(
        directory or self._run.directory.path,
        summary=summary,
        config=self._config.to_dict(),
        history=self._run.directory.history(),
        training=self._run.task.training_report(summary, self._run.directory.history()),
        samples=samples,
        frames=image_grid.read_frames(self._run.directory.samples),
        interpolation=interpolation,
        neighbours=neighbours,
        sample_classes=opinion,
        scores=scores.as_json() if scores else None,
        class_names=self._dataset.class_names,
        notes=[*data_notes(self._dataset), *self._diagnosis().values()],
      )

    return write

  def training_values(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns what the task says of the last epoch."""
    return self._run.task.training_values(measured)

  def updated_summary(
    self, summary: dict[str, Any], final: FinalEvaluation
  ) -> dict[str, Any]:
    """Returns the summary of a finished run with new measures, and writes it.

    Without a network to measure with nothing was measured, and the summary stays.
    """
    if self._extractors.features or self._extractors.classifier:
      summary = summary | final.values | {'measure': self._run.task.measure}
      self._run.directory.write(self._run.directory.summary_file, summary)
    return summary


def class_counts(seen: generative.FeatureStatistics) -> np.ndarray:
  """Returns how many samples a classifier takes for each class: int64 [K]."""
  classes = seen.probabilities.argmax(1)
  return np.bincount(classes, minlength=seen.probabilities.shape[1])
