"""Evaluation of a GAN that trains, and of one that has."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision.commands.say import data_notes
from jaxvision.data.cache import directory as cache_directory
from jaxvision.data.dataset import Dataset
from jaxvision.errors import UserError
from jaxvision.metrics import generative
from jaxvision.metrics.feature_extractors import FeatureExtractor
from jaxvision.metrics.gan_diagnosis import diagnose
from jaxvision.tasks import Task
from jaxvision.tasks.judging import find_classifier, find_judge
from jaxvision.training import step as programs
from jaxvision.training.logging import read_history, warn
from jaxvision.training.outcome import Outcome
from jaxvision.training.run_directory import RunDirectory, write_json
from jaxvision.training.sampler import Sampler

_GRID = 64  # samples of the same noise, drawn at every evaluation
_ROWS, _COLUMNS = 6, 10  # of interpolation
_EXAMINED, _NEIGHBOURS = 8, 5  # samples beside their nearest training images


@dataclasses.dataclass(frozen=True)
class Panel:
  """The judges of a run, either of which may be missing.

  Attributes:
    features: by which distances are measured.
    classifier: which says what classes are drawn.
  """

  features: FeatureExtractor | None
  classifier: FeatureExtractor | None

  @classmethod
  def of(cls, config: ConfigDict, dataset: Dataset) -> 'Panel':
    """Returns the judges that the config names; raises UserError if they are no good."""
    wanted, shape = config.evaluation, tuple(dataset.image_shape)
    features = classifier = None
    if wanted.features:
      field = 'evaluation.features'
      features = find_judge(wanted.features, wanted.resizer, shape, field)
      _check_split(dataset, wanted.reference)
    if wanted.classifier:
      classifier = find_classifier(wanted.classifier, shape, 'evaluation.classifier')
    elif features and features.class_names:
      classifier = features
    return cls(features, classifier)


def _check_split(dataset: Dataset, split: str) -> None:
  if split not in dataset.splits:
    raise UserError(
      f'evaluation.reference: there is no {split} split of {dataset.name}: take one of '
      + ', '.join(dataset.splits)
    )


class Generating:
  """An `Examiner` by samples: a grid of the same noise each time, and the judges.

  Args:
    config, directory, dataset, task, mesh: of the run.
    panel: the judges.
    state: whose shapes the programs are compiled for.
    compiler: keeps account of what is compiled.
  """

  split = 'samples'

  def __init__(
    self,
    config: ConfigDict,
    directory: RunDirectory,
    dataset: Dataset,
    task: Task,
    mesh: jax.sharding.Mesh,
    panel: Panel,
    state: Any,
    compiler: programs.Compiler,
  ):
    self._config, self._directory, self._dataset = config, directory, dataset
    self._panel = panel
    self._sampler = Sampler(
      task.generator, mesh, state.eval_variables, config.eval_batch_size, compiler
    )
    self._cache = cache_directory(config.data.cache_dir) / 'statistics'
    self._noise = self._sampler.noise(_GRID, config.seed)
    real = [dataset.splits['train'][i][0] for i in self._spread()]
    self._real_diversity = generative.diversity(np.stack(real))
    self._drawn: np.ndarray | None = None
    self._seen: dict[str, generative.FeatureStatistics] = {}
    self._warned: set[str] = set()

  def _spread(self) -> list[int]:
    count = len(self._dataset.splits['train'])
    return np.linspace(0, count - 1, min(_GRID, count)).astype(int).tolist()

  def _real(self, split: str) -> generative.FeatureStatistics:
    if split not in self._seen:
      source = self._dataset.splits[split]
      self._seen[split] = generative.split_statistics(
        self._panel.features, source, split, self._cache
      )
    return self._seen[split]

  def _fake(
    self, judge: FeatureExtractor, variables: Any, count: int
  ) -> generative.FeatureStatistics:
    batches = self._sampler.batches(variables, count, self._config.seed)
    return generative.compute_statistics(judge, batches, count, 'samples')

  def _grid(self, state: Any) -> np.ndarray:
    labels = self._sampler.labels(_GRID)
    return self._sampler.images(state.eval_variables, self._noise, labels)

  def measure(self, state: Any) -> dict[str, float]:
    """Draws the grid and, on a few samples, measures; warns of collapse."""
    from jaxvision.reports import image_grid

    samples = self._grid(state)
    step = int(state.step)
    folder = self._directory.samples
    folder.mkdir(exist_ok=True)
    self._drawn = image_grid.grid(samples)
    image_grid.save_png(folder / image_grid.frame_name(step), self._drawn)
    values = {'diversity': generative.diversity(samples) / self._real_diversity}
    self._warn(step, values['diversity'])
    wanted, panel = self._config.evaluation, self._panel
    count, variables = wanted.samples_while_training, state.eval_variables
    if not count:
      return values
    fake = None
    if panel.features:
      fake = self._fake(panel.features, variables, count)
      real = self._real(wanted.reference)
      scores = generative.compute_scores(panel.features, fake, real, manifolds=False)
      values |= {'fd': scores.value, 'kid': scores.kid, 'samples': count}
    if panel.classifier:
      if panel.classifier is not panel.features:
        fake = self._fake(panel.classifier, variables, count)
      values['confidence'] = float(fake.probabilities.max(1).mean())
    return values

  def picture(self) -> np.ndarray | None:
    """Returns the grid that the last `measure` drew, enlarged."""
    from jaxvision.reports import image_grid

    if self._drawn is None:
      return None
    scale = image_grid.fitting_scale(self._drawn.shape[1])
    return image_grid.enlarged(self._drawn, scale)

  def _warn(self, step: int, diversity: float) -> None:
    """Tells, once each, what is going wrong."""
    now = {'step': step, 'split': self.split, 'diversity': diversity}
    for name, text in self._diagnosis(now).items():
      if name not in self._warned:
        self._warned.add(name)
        warn(text)

  def _diagnosis(self, *more: dict[str, Any]) -> dict[str, str]:
    history = read_history(self._directory.metrics_file)
    return diagnose([*history, *more], self._config.gan.loss)

  def scores(
    self, state: Any
  ) -> tuple[generative.Scores | None, generative.FeatureStatistics | None]:
    """Measures on `evaluation.samples`: the distances, and what the classifier saw."""
    wanted, panel = self._config.evaluation, self._panel
    variables, fake, scores = state.eval_variables, None, None
    if panel.features:
      fake = self._fake(panel.features, variables, wanted.samples)
      floor = None
      if {'train', 'test'} <= self._dataset.splits.keys():
        train, test = self._real('train'), self._real('test')
        floor = generative.frechet_distance(train.moments, test.moments)
      real = self._real(wanted.reference)
      scores = generative.compute_scores(panel.features, fake, real, floor=floor)
    if panel.classifier and panel.classifier is not panel.features:
      fake = self._fake(panel.classifier, variables, wanted.samples)
    return scores, fake if panel.classifier else None

  def finish(self, state: Any) -> Outcome:
    """Measures in full and draws what the report shows."""
    scores, judged = self.scores(state)
    values: dict[str, Any] = dict.fromkeys(
      ('test_loss', 'test_accuracy', 'test_accuracy_top5')
    )
    measured = scores.as_json() if scores else {}
    values |= {
      'fid': measured['value'] if scores and scores.name == 'FID' else None,
      'fd': measured.get('value'),
      'fd_name': measured.get('name'),
      'fd_floor': measured.get('floor'),
      **{
        name: measured.get(name)
        for name in (
          'kid',
          'kid_std',
          'inception_score',
          'precision',
          'recall',
          'density',
          'coverage',
          'protocol',
        )
      },
    }
    values |= {'class_confidence': None, 'class_shares': None, 'classifier': None}
    line = scores.line() if scores else ''
    if judged:
      classifier = self._panel.classifier
      counts = class_counts(judged)
      confidence = float(judged.probabilities.max(1).mean())
      values |= {
        'class_confidence': confidence,
        'class_shares': (counts / counts.sum()).tolist(),
        'classifier': classifier.weights,
      }
      line += (
        f'  confidence {confidence:.1%}' if line else f'confidence {confidence:.1%}'
      )
    line = line or f'{_GRID} samples drawn; evaluation.features measures them'
    return Outcome(values, line, self._reporter(state, scores, judged))

  def _reporter(
    self,
    state: Any,
    scores: generative.Scores | None,
    judged: generative.FeatureStatistics | None,
  ) -> Callable[[dict[str, Any]], Path]:
    """Returns what writes the report, see `Outcome`."""

    def write(summary: dict[str, Any]) -> Path:
      from jaxvision.reports import image_grid
      from jaxvision.reports.gan import report

      samples = self._grid(state)
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
      if judged:
        confidences = judged.probabilities.max(1)
        opinion = report.SampleClasses(
          self._panel.classifier.weights,
          class_counts(judged),
          float(confidences.mean()),
          confidences,
          self._panel.classifier.class_names,
        )
      return report.write_generation_report(
        self._directory.path,
        summary=summary,
        config=self._config.to_dict(),
        history=read_history(self._directory.metrics_file),
        samples=samples,
        frames=image_grid.read_frames(self._directory.samples),
        interpolation=self._sampler.interpolation(
          state.eval_variables, _ROWS, _COLUMNS, self._config.seed
        ),
        neighbours=neighbours,
        sample_classes=opinion,
        scores=scores.as_json() if scores else None,
        class_names=self._dataset.class_names,
        notes=[*data_notes(self._dataset), *self._diagnosis().values()],
      )

    return write

  def training(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns the losses of the last epoch, D(x) and D(G(z))."""
    return {'train_loss': None, 'train_accuracy': None, **measured}


def bring_up_to_date(
  directory: RunDirectory, panel: Panel, values: dict[str, Any]
) -> dict[str, Any]:
  """Returns the summary of a finished run with new measures, which it writes there too.

  Without a judge nothing was measured, and what was before stays.
  """
  summary = directory.summary() or {}
  if panel.features or panel.classifier:
    summary |= values
    write_json(directory.summary_file, summary)
  return summary


def class_counts(judged: generative.FeatureStatistics) -> np.ndarray:
  """Returns how many samples a classifier takes for each class: int64 [K]."""
  classes = judged.probabilities.argmax(1)
  return np.bincount(classes, minlength=judged.probabilities.shape[1])
