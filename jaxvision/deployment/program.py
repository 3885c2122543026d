"""A trained run as one pure function, for every format that leaves the library."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvision.errors import UserError
from jaxvision.inference.predictor import Predictor
from jaxvision.inference.signature import GeneratorSignature, Signature

Array = tuple[str, tuple[int, ...], Any]  # name, shape without the batch, dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """What a run computes of a batch, in inference mode, with what it takes and returns.

  Attributes:
    function: (variables, *inputs) -> a tuple of outputs, each of the same batch.
    variables: the weights, NumPy arrays in a tree.
    inputs, outputs: name, shape without the batch, and dtype of each.
    signature: of the run.
  """

  function: Callable[..., tuple[jax.Array, ...]]
  variables: Any
  inputs: tuple[Array, ...]
  outputs: tuple[Array, ...]
  signature: Signature | GeneratorSignature


def program_of(run: Any) -> Program:
  """Returns the program of what `load_run` returned.

  A classifier takes `images`, uint8 [B, H, W, C], normalises them, and returns
  `probabilities` float32 [B, K] and `logits` float32 [B, K]; a regression `values`. What
  draws takes `noise` float32 [B, latent] and, where it has classes, `labels` int32 [B], and
  returns `images`, uint8 [B, H, W, C].

  Raises:
    UserError: it is a run of a task of one's own that neither classifies nor draws.
  """
  if isinstance(run, Predictor):
    return _of_classifier(run)
  if hasattr(run, 'generator'):
    return _of_generator(run)
  raise UserError(
    f'export: {type(run).__name__} is neither a classifier nor a generator: its task '
    'would have to say what is exported; --format=safetensors takes its weights'
  )


def _of_classifier(run: Predictor) -> Program:
  signature = run.signature
  is_regression = signature.kind == 'regression'

  def function(variables: Any, images: jax.Array) -> tuple[jax.Array, ...]:
    outputs = run.outputs(variables, images)
    found = run.task.probabilities(outputs).astype(jnp.float32)
    return (found,) if is_regression else (found, outputs.astype(jnp.float32))

  names = (signature.output,) if is_regression else (signature.output, 'logits')
  inputs: tuple[Array, ...] = (('images', signature.image_shape, np.uint8),)
  program = _traced(run.state.eval_variables, function, inputs, names, signature)
  _, shape, _ = program.outputs[0]
  if shape != (len(signature.class_names),):
    raise UserError(
      f'export: the run has outputs of shape {list(shape)} for an image, which are no '
      'classes: --format=safetensors takes its weights'
    )
  return program


def _of_generator(run: Any) -> Program:
  generator, signature = run.generator, run.signature
  inputs: list[Array] = [('noise', (generator.latent,), np.float32)]
  if signature.class_names:
    inputs.append(('labels', (), np.int32))

  def function(variables: Any, noise: jax.Array, *labels: jax.Array) -> tuple:
    of_none = jnp.zeros(noise.shape[:1], jnp.int32)
    return (generator.draw(variables, noise, *(labels or (of_none,))),)

  return _traced(run.variables, function, tuple(inputs), ('images',), signature)


def _traced(
  variables: Any, function: Callable, inputs: tuple, names: tuple, signature: Any
) -> Program:
  """Returns the program, with the shapes that tracing finds for its outputs."""
  given = [jax.ShapeDtypeStruct((1, *shape), dtype) for _, shape, dtype in inputs]
  found = jax.eval_shape(function, variables, *given)
  outputs = tuple((n, tuple(o.shape[1:]), o.dtype) for n, o in zip(names, found))
  return Program(function, jax.device_get(variables), inputs, outputs, signature)
