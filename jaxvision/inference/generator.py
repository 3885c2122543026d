"""A trained generative model, out of a run or out of a file, ready to draw."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import models
from jaxvision import weights as weights_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError, closest
from jaxvision.inference.signature import GeneratorSignature
from jaxvision.training import runtime
from jaxvision.training.compiler import Compiler
from jaxvision.training.mesh import local_mesh
from jaxvision.training.run_directory import RunDirectory
from jaxvision.training.sampler import Drawing, Generator, Sampler, make_generator
from jaxvision.weights import Weights


@dataclasses.dataclass(repr=False)
class GeneratorRun:
  """A generative model with its weights.

  Attributes:
    model: a GAN or a flow.
    variables: the weights of what draws.
    class_names: of what it was trained on; to choose by where it is conditional.
    origin: where it comes from.
    config: of the run; None out of a file.
    info: what is known of the run's data; None out of a file.
    step: of the weights; None out of a file.
    state: of the run; None out of a file.
    workdir: of the run; None out of a file.
  """

  model: models.GenerativeModel
  variables: Any
  class_names: tuple[str, ...]
  origin: str
  config: ConfigDict | None = None
  info: DatasetInfo | None = None
  step: int | None = None
  state: Any = None
  workdir: str | None = None
  _samplers: dict[int, Sampler] = dataclasses.field(
    default_factory=dict, init=False, compare=False
  )

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape (H, W, C) of the images that it draws, of a run."""
    assert self.info, 'a generator out of a file'
    return self.info.image_shape

  @functools.cached_property
  def generator(self) -> Generator:
    """What draws, compiled by nobody yet."""
    return make_generator(self.model)

  @functools.cached_property
  def signature(self) -> GeneratorSignature:
    """The noise and the classes that it draws by, and the images that it draws."""
    generator = self.generator
    noise = jax.ShapeDtypeStruct((1, generator.latent), np.float32)
    labels = jax.ShapeDtypeStruct((1,), np.int32)
    shape = jax.eval_shape(generator.draw, self.variables, noise, labels).shape[1:]
    facts: dict[str, Any] = {'run': self.origin.rsplit('/', 1)[-1]}
    if self.config is not None and self.info is not None:
      facts |= {'config_name': self.config.name, 'dataset': self.info.name}
      facts |= {'step': self.step}
    return GeneratorSignature(
      shape,
      self.class_names if generator.classes else (),
      generator.latent,
      self.config.model.name if self.config is not None else '',
      facts,
    )

  def with_settings(self, settings: Mapping[str, Any]) -> 'GeneratorRun':
    """Returns the same weights, drawing by other numbers.

    Args:
      settings: fields of the config's section `flow`, such as {'steps': 50}; {} changes
        nothing.

    Raises:
      UserError: the model cannot draw so, as a GAN by any of them.
    """
    return dataclasses.replace(self, model=self.model.with_settings(settings))

  def sample(
    self,
    count: int,
    seed: int = 0,
    label: str | int | None = None,
    batch_size: int = 256,
  ) -> np.ndarray:
    """Draws images.

    Args:
      count: how many.
      seed: image i of a seed is the same whatever `count` and `batch_size` are.
      label: name or number of the class, of a conditional generator; None: one class
        after the other.
      batch_size: images at a time.

    Returns:
      uint8 [count, H, W, C].

    Raises:
      UserError: no such class, or it draws without classes.
    """
    names = self.class_names if self.generator.classes else ()
    labels = class_numbers(count, label, names, self.origin)
    sampler = self._sampler(min(count, batch_size))
    return sampler.images(self.variables, sampler.noise(count, seed), labels)

  def interpolate(self, rows: int, columns: int = 10, seed: int = 0) -> np.ndarray:
    """Draws rows of images on the way from one sample to another.

    Returns:
      uint8 [rows, columns, H, W, C].

    Raises:
      UserError: fewer than 1 row or 2 columns.
    """
    if rows < 1 or columns < 2:
      raise UserError('sample: an interpolation has at least 1 row and 2 columns')
    sampler = self._sampler(min(rows * columns, 256))
    return sampler.interpolation(self.variables, rows, columns, seed)

  def history(self) -> list[dict[str, Any]]:
    """Returns the log points of the run: 'step', 'split' and measures; [] of a file."""
    return RunDirectory(self.workdir).history() if self.workdir else []

  def __repr__(self) -> str:
    shapes = jax.tree.leaves(self.variables)
    names, more = self.class_names, ', ...' if len(self.class_names) > 10 else ''
    labels = (
      f'by class ({", ".join(names[:10])}{more})' if self.generator.classes else ''
    )
    return (
      f'{type(self).__name__} of {self.origin}\n'
      f'  {sum(leaf.size for leaf in shapes):,} parameters of the generator\n'
      f'  draws {labels or "without classes"}'
    )

  def _sampler(self, batch_size: int) -> Sampler:
    """Returns what draws so many at a time, compiled the first time."""
    if batch_size not in self._samplers:
      drawing = Drawing(self.generator, local_mesh(), Compiler())
      self._samplers[batch_size] = Sampler(drawing, self.variables, batch_size)
    return self._samplers[batch_size]


def class_numbers(
  count: int, label: str | int | None, names: Sequence[str], origin: str
) -> np.ndarray:
  """Returns the classes of the images that somebody asks a generator for.

  Args:
    count: how many images.
    label: name or number of the class of all; None: one class after the other.
    names: of the classes; empty: it draws without.
    origin: of the generator, for messages.

  Returns:
    int32 [count].

  Raises:
    UserError: no image is asked for; there is no such class, or none at all.
  """
  if count < 1:
    raise UserError(f'sample: the count must be at least 1, not {count}')
  if label is None:
    return np.arange(count, dtype=np.int32) % max(1, len(names))
  return np.full(count, _class_number(label, names, origin), np.int32)


def _class_number(label: str | int, names: Sequence[str], origin: str) -> int:
  if not names:
    raise UserError(
      f'sample: {origin} draws without classes (model.conditional is off)'
    )
  if isinstance(label, str) and label in names:
    return names.index(label)
  text = str(label)
  if text.isdigit() and int(text) < len(names):
    return int(text)
  raise UserError(
    f'sample: there is no class "{label}"{closest(text, names)} (names, or 0 to '
    f'{len(names) - 1})'
  )


def load_generator(path: str | Path) -> GeneratorRun:
  """Returns the GAN or flow in a file that `jaxvision export` wrote.

  Raises:
    UserError: no such file, or one of something else.
  """
  found = weights_lib.read(str(path))
  if found.model not in models.TASK_OF:
    raise UserError(
      f'{path}: holds no generator: give a file that `jaxvision export` wrote of a run '
      'that draws images'
    )
  return generator_of(found, str(path))


def generator_of(found: Weights, path: str) -> GeneratorRun:
  """Returns the GAN or flow of weights.

  Args:
    found: what was read of a file; its model is one of `models.TASK_OF`.
    path: of the file.

  Raises:
    UserError: there is no such network.
  """
  runtime.check_environment()
  facts, fields = found.preprocessing, dict(found.fields or {})
  names = facts.class_names or ()
  shape = (facts.image_size or 0, facts.image_size or 0, facts.channels or 0)
  try:
    model = models.create_generative(
      found.model,
      shape,
      found.sections.get('flow'),
      path,
      max(1, len(names)),
      **fields,
    )
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  variables = jax.eval_shape(model.init, jax.random.key(0))
  loaded = weights_lib.load(found, variables).variables
  return GeneratorRun(model, loaded, names, path)
