"""What tasks that draw images share: the fields they take, their samples, evaluation."""

import abc
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvision import models
from jaxvision.config import base_config
from jaxvision.data.augment import check, make_augment, mixes
from jaxvision.data.dataset import Dataset
from jaxvision.errors import UserError
from jaxvision.inference.generator import GeneratorRun
from jaxvision.tasks.base import PyTree, Task, TaskContext
from jaxvision.tasks.sample_evaluator import SampleEvaluator, SampleExtractors
from jaxvision.training.sampler import Generator, make_generator, to_pixels


class GenerativeTask(Task):
  """Trains a generative model, which is measured by the images that it draws.

  Batches hold `image` uint8 [B, H, W, C] and `label` int32 [B].

  Attributes:
    without_meaning: fields of a config that mean nothing to the task, and why.
    model: what is trained, see `make_model`.
    generator: draws images with the state's `eval_variables`.
    augment: (key, images uint8) -> images in [-1, 1].
  """

  best = ('fd', 'min')
  holds_out = False
  without_meaning: ClassVar[tuple[tuple[str, str], ...]] = ()

  model: models.GenerativeModel
  generator: Generator

  def __init__(self, context: TaskContext):
    super().__init__(context)
    config, info = self.config, self.info
    _check_fields(config, self.without_meaning)
    if info.label_kind != 'class':
      raise UserError(
        f'config: task {config.task} takes labels that are classes, not of kind '
        f'{info.label_kind}'
      )
    check(config.augment, info.image_shape)
    if mixes(config.augment):
      raise UserError(
        'config: augment.mixup and augment.cutmix mix targets, and task '
        f'{config.task} has none: set them to 0'
      )
    half = (0.5,) * info.image_shape[-1]  # mean and deviation: [0, 1] to [-1, 1]
    self.normalization = (half, half)
    self.augment = make_augment(
      config.augment, half, half, jnp.float32, custom=self.parts.augment
    )
    self.model = self.make_model()
    self.generator = make_generator(self.model)

  @abc.abstractmethod
  def make_model(self) -> models.GenerativeModel:
    """Returns the generative model of the config; raises UserError where there is none."""

  @abc.abstractmethod
  def training_report(
    self, summary: dict[str, Any], history: list[dict[str, Any]]
  ) -> Any:
    """Returns the `TrainingReport`: charts and facts of how the task trained.

    Args:
      summary: content of summary.json.
      history: the parsed metrics.jsonl.
    """

  def diagnose(self, history: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Returns a sentence by name for each thing that goes wrong, from the log points."""
    del history
    return {}

  def training_values(self, measured: dict[str, float | None]) -> dict[str, Any]:
    """Returns what summary.json holds of training, from the means of the last epoch."""
    return dict(measured)

  @functools.cached_property
  def extractors(self) -> SampleExtractors:
    """The networks that samples are measured with."""
    return SampleExtractors.of(self.config, self.info)

  def prepare_evaluation(self) -> None:
    """Finds the networks that samples are measured with, or raises UserError."""
    _ = self.extractors

  def evaluator(
    self, run: Any, dataset: Dataset, inputs: Dataset, state: PyTree
  ) -> SampleEvaluator:
    """See `Task.evaluator`."""
    del inputs
    return SampleEvaluator(run, dataset, state)

  def load(self, state: PyTree, step: int, origin: str) -> GeneratorRun:
    """Returns the trained model for `load_run`."""
    return GeneratorRun(
      self.model,
      state.eval_variables,
      self.info.class_names,
      f'{origin} (step {step})',
      config=self.config,
      info=self.info,
      step=step,
      state=state,
      workdir=origin,
    )

  def augmented(
    self, key: jax.Array, images: jax.Array, flips: jax.Array | None = None
  ) -> jax.Array:
    """Returns training images as the networks see them, as pixels."""
    del flips
    return to_pixels(self.augment(key, images))

  @property
  def measure(self) -> dict[str, Any]:
    """What runs are ranked by: the Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance."""
    return {
      'key': 'fd',
      'label': 'Fr\N{LATIN SMALL LETTER E WITH ACUTE}chet distance',
      'split': 'samples',
      'logged': 'fd',
      'mode': 'min',
      'percent': False,
    }


def _check_fields(config: ConfigDict, fields: Sequence[tuple[str, str]]) -> None:
  """Raises UserError where a field that means nothing to the task is not its default."""
  default = base_config()
  for path, why in fields:
    value, empty = config, default
    for key in path.split('.'):
      value, empty = value[key], empty[key]
    if _plain(value) != _plain(empty):
      raise UserError(
        f'config: {path} does not hold for task {config.task}: {why}; leave it out'
      )


def _plain(value: Any) -> Any:
  return value.to_dict() if isinstance(value, ConfigDict) else value
