"""A trained run as a function from images to classes or values."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.data.augment import normalize
from jaxvision.errors import UserError, closest
from jaxvision.inference.classifier import Classifier, Predictions
from jaxvision.inference.signature import Signature
from jaxvision.models.features_and_logits import features_and_logits
from jaxvision.models.grad_cam import grad_cam
from jaxvision.training import runtime
from jaxvision.training.evaluation import images_per_batch
from jaxvision.training.run_directory import RunDirectory

__all__ = ['Predictions', 'Predictor']

# What of summary.json an exported file tells of the run.
_FACTS = ('config_name', 'dataset', 'seed', 'epochs', 'test_accuracy', 'git_commit')


class Predictor(Classifier):
  """A trained run: its config, what is known of its data, its weights.

  Args:
    task: a `SupervisedTask`.
    state: the restored train state; `state.eval_variables` are the weights.
    step: of the weights.
    origin: the run directory.

  Attributes:
    config: the whole config of the run.
    info: class names, image shape and normalisation.
    task, state, step: see above.
  """

  pads: ClassVar[bool] = True  # each size is compiled

  def __init__(self, task: Any, state: Any, step: int, origin: str):
    self.task, self.state, self.step, self.origin = task, state, step, origin
    self.config, self.info = task.config, task.info
    self._programs: dict[str, Callable] = {}

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape (H, W, C) of the images that the network sees."""
    return self.task.input_shape

  @functools.cached_property  # it reads a file, and is asked for with every image
  def signature(self) -> Signature:
    """The images that the run takes, its outputs, and what is known of its training."""
    info, directory = self.info, RunDirectory(self.origin)
    facts = {'step': self.step, 'run': directory.path.name}
    facts['params'] = sum(self.task.count_parameters(self.state.params).values())
    summary = directory.summary() or {}
    # The numbers of a summary are those of the end of training.
    if summary.get('steps') == self.step:
      facts |= {key: summary[key] for key in _FACTS if summary.get(key) is not None}
    else:
      facts |= {'config_name': self.config.name, 'dataset': info.name}
    return Signature(
      info.image_shape,
      self.task.output_names,
      info.label_kind,
      info.crop_fraction,
      info.interpolation,
      self.config.model.name,
      facts,
    )

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Returns the outputs for one batch, see `Classifier.probabilities`."""
    return np.asarray(self._program('predict', self._probabilities)(images))

  def largest_batch(self) -> int:
    """Returns how many images go through the network at once: 256, or fewer."""
    return self._most(self._probabilities)

  def features(self, images: Any, batch_size: int | None = None) -> np.ndarray:
    """Returns what goes into the last layer of the network, float32 [n, D].

    Args:
      images, batch_size: as for `predict`.

    Raises:
      UserError: as for `predict`, or the network has no layer called head.
    """
    found = self._batched('features', self._features, images, batch_size)
    return np.zeros((0, 0), np.float32) if found is None else found

  def logits(self, images: Any, batch_size: int | None = None) -> np.ndarray:
    """Returns the outputs of the network before they become probabilities.

    Args:
      images, batch_size: as for `predict`.

    Returns:
      float32 [n, K].

    Raises:
      UserError: as for `predict`.
    """
    found = self._batched('logits', self._logits, images, batch_size)
    empty = np.zeros((0, len(self.task.output_names)), np.float32)
    return empty if found is None else found

  def grad_cam(
    self,
    images: Any,
    label: str | int | None = None,
    batch_size: int | None = None,
  ) -> np.ndarray:
    """Returns where in each image the network sees a class, see `models.grad_cam`.

    Args:
      images, batch_size: as for `predict`.
      label: name or number of the class; None: the most probable one of each image.

    Returns:
      float32 [n, H, W] of the size that the network takes, from 0 to 1.

    Raises:
      UserError: as for `predict`; there is no such class; or the network has no maps.
    """
    number = None if label is None else self._number(label)

    def maps(variables: Any, images: jax.Array) -> jax.Array:
      images = self._normal(images)
      if number is None:
        labels = self.task.apply(variables, images).argmax(-1)
      else:
        labels = jnp.full(len(images), number)
      return grad_cam(self.task.model, variables, images, labels)

    found = self._batched(f'grad_cam {number}', maps, images, batch_size)
    shape = (0, *self.info.image_shape[:2])
    return np.zeros(shape, np.float32) if found is None else found

  def history(self) -> list[dict[str, Any]]:
    """Returns the log points of the run: 'step', 'split' and the measures of each."""
    return RunDirectory(self.origin).history()

  def __repr__(self) -> str:
    names, info = self.task.output_names, self.info
    count = sum(self.task.count_parameters(self.state.params).values())
    more = ', ...' if len(names) > 10 else ''
    return (
      f'{type(self).__name__} of {self.origin}, step {self.step}\n'
      f'  model: {self.config.model.name}, {count:,} parameters, trained on {info.name}\n'
      f'  images: uint8 [n, {", ".join(map(str, info.image_shape))}], or files\n'
      f'  outputs: {len(names)} ({", ".join(names[:10])}{more})'
    )

  def _number(self, label: str | int) -> int:
    names = self.task.output_names
    if label in names:
      return names.index(str(label))
    if str(label).isdigit() and int(label) < len(names):
      return int(label)
    raise UserError(
      f'there is no class "{label}"{closest(str(label), names)} (names, or 0 to '
      f'{len(names) - 1})'
    )

  def outputs(self, variables: Any, images: jax.Array) -> jax.Array:
    """Returns what the network says of uint8 images, traced: logits or values [B, K]."""
    return self.task.apply(variables, self._normal(images))

  def _logits(self, variables: Any, images: jax.Array) -> jax.Array:
    return self.outputs(variables, images).astype(jnp.float32)

  def _probabilities(self, variables: Any, images: jax.Array) -> jax.Array:
    return self.task.probabilities(self.outputs(variables, images))

  def _features(self, variables: Any, images: jax.Array) -> jax.Array:
    return features_and_logits(self.task.model, variables, self._normal(images))[0]

  def _normal(self, images: jax.Array) -> jax.Array:
    mean, std = self.task.normalization
    return normalize(images, mean, std, self.task.dtype)

  def _batched(
    self, name: str, function: Callable, images: Any, batch_size: int | None
  ) -> np.ndarray | None:
    """Applies a function to batches of images; None where there are no images."""
    return self.apply(
      self._program(name, function), images, batch_size or self._most(function), name
    )

  def _program(self, name: str, function: Callable) -> Callable[[np.ndarray], Any]:
    """Returns the compiled function of a batch of images."""
    if name not in self._programs:
      options = runtime.compiler_options()
      self._programs[name] = jax.jit(function, compiler_options=options)
    return functools.partial(self._programs[name], self.state.eval_variables)

  def _most(self, function: Callable) -> int:
    """Returns how many images a function evaluates at a time."""
    variables, shape = self.state.eval_variables, self.info.image_shape
    return images_per_batch(
      function,
      lambda count: (variables, jax.ShapeDtypeStruct((count, *shape), np.uint8)),
      self.input_shape,
      256,
    )
