"""Exported weights as functions from images to classes: the network is made anew."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvision import models
from jaxvision import weights as weights_lib
from jaxvision.data.augment import normalize
from jaxvision.errors import UserError
from jaxvision.inference.classifier import Classifier
from jaxvision.inference.generator import generator_of
from jaxvision.inference.signature import Signature, from_json, to_json
from jaxvision.models.resized import resized
from jaxvision.training import pretrained, runtime
from jaxvision.training.evaluation import images_per_batch
from jaxvision.weights import Weights

# What makes probabilities, or values, of the outputs of a network.
_LAST = {
  'class': jax.nn.softmax,
  'multilabel': jax.nn.sigmoid,
  'regression': lambda values: values,
}


class WeightsClassifier(Classifier):
  """A classifier of the model table with the weights of a file.

  Args:
    model: the network.
    variables: its weights.
    signature: of the file.
    normalization: mean and standard deviation of each channel, in units of [0, 1].
  """

  pads = True  # each size is compiled

  def __init__(
    self, model: Any, variables: Any, signature: Signature, normalization: tuple
  ):
    self.model, self.variables, self._signature = model, variables, signature
    mean, std = normalization
    last = _LAST[signature.kind]

    def function(variables: Any, images: jax.Array) -> jax.Array:
      return last(model.apply(variables, normalize(images, mean, std)))

    self._function = function

  @property
  def signature(self) -> Signature:
    """The images that it takes and the names of its outputs."""
    return self._signature

  @functools.cached_property
  def _program(self) -> Any:
    return jax.jit(self._function, compiler_options=runtime.compiler_options())

  def probabilities(self, images: np.ndarray) -> np.ndarray:
    """Returns the outputs for one batch, see `Classifier.probabilities`."""
    return np.asarray(self._program(self.variables, images))

  def largest_batch(self) -> int:
    """Returns how many images go through the network at once: 256, or fewer."""
    shape = self._signature.image_shape
    return images_per_batch(
      self._function,
      lambda count: (self.variables, jax.ShapeDtypeStruct((count, *shape), np.uint8)),
      shape,
      256,
    )


def load_weights(path: str | Path) -> Any:
  """Returns the classifier or the generator in a file that `jaxvision export` wrote.

  Args:
    path: of safetensors.

  Returns:
    A `WeightsClassifier`, or of a generator what `load_generator` returns.

  Raises:
    UserError: no such file; or one that does not say which network it is for, such as
      weights from elsewhere.
  """
  found = weights_lib.read(str(path))
  if found.model in models.TASK_OF:
    return generator_of(found, str(path))
  if found.model is None or ':' in found.model:
    whose = 'a network of your own' if found.model else 'no network'
    raise UserError(
      f'{path} names {whose}, and cannot be run without it: export the run as .onnx or '
      '.stablehlo; weights from elsewhere are evaluated by `jaxvision eval '
      '--config=FILE --config.init.pretrained=SOURCE`'
    )
  runtime.check_environment()
  signature, mean, std = _signature(found, str(path))
  model = models.create(
    found.model, len(signature.class_names), 'float32', **(found.fields or {})
  )
  resize = found.sections.get('resize', {})
  if resize.get('size'):
    model = resized(model, resize['size'], resize.get('interpolation', 'bilinear'))
  images = jax.ShapeDtypeStruct((1, *signature.image_shape), np.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  loaded = weights_lib.load(found, variables).variables
  return WeightsClassifier(model, loaded, signature, (mean, std))


def _signature(found: Weights, origin: str) -> tuple[Signature, Any, Any]:
  """Returns the signature, mean and standard deviation that a file has."""
  facts, given = found.preprocessing, found.sections.get('signature')
  missing = [
    name
    for name in ('mean', 'std', 'class_names', 'image_size', 'channels')
    if getattr(facts, name) is None
  ]
  if missing:
    raise UserError(
      f'{origin}: its metadata lack {", ".join(missing)}: export it again'
    )
  if given:
    signature = from_json(json.dumps(given), origin)
    return signature, facts.mean, facts.std
  # Files of earlier versions say no more than their preprocessing.
  shape = (facts.image_size, facts.image_size, facts.channels)
  signature = Signature(
    shape,
    facts.class_names,
    crop_fraction=facts.crop_fraction or 1.0,
    interpolation=facts.interpolation or 'bilinear',
    model=found.model or '',
  )
  return signature, facts.mean, facts.std


def save_weights(path: Path, run: Any, variables: Any) -> str:
  """Writes the weights of a run as safetensors, such that `load_weights` reads them.

  Args:
    path: the file; one that exists is replaced.
    run: what `load_run` returned.
    variables: the run's, or others in their place.

  Returns:
    The style of the names, see `weights.save`.
  """
  config = run.config
  fields = dict(config.model)
  name = fields.pop('name')
  signature = getattr(run, 'signature', None)
  sections = {
    'flow': dict(config.flow) if name in models.FLOWS else {},
    'resize': {
      'size': config.resize.size,
      'interpolation': config.resize.interpolation,
    },
    'signature': json.loads(to_json(signature)) if signature else {},
  }
  if not config.resize.size:
    del sections['resize']
  facts = pretrained.preprocessing_of(run.info, run.input_shape)
  own = ':' in name
  kept = None if own else fields
  return weights_lib.save(path, variables, facts, name, kept, sections)


# Whose network has the names of a style.
_NETWORKS = {
  'torchvision': 'torchvision.models.{name}(num_classes={classes})',
  'efficientnet': 'torchvision.models.{name}(num_classes={classes})',
  'timm': "timm.create_model('{name}', num_classes={classes})",
  'cifar': 'the ResNet of 6n + 2 layers for CIFAR (conv1, layer1, ..., linear)',
  'module': 'a torch.nn.Module whose attributes have the names of the tensors',
}


# Their names there, where these are others.
_NAMES = {'mobilenet_v2': 'mobilenetv2_100'}


def in_torch(path: Path, run: Any, style: str) -> str:
  """Returns the line that loads a file into PyTorch, '' where no module there takes it.

  Args:
    path: that `save_weights` wrote.
    run: of the weights.
    style: that `save_weights` returned.
  """
  if style not in _NETWORKS:
    return ''
  name = run.config.model.name
  network = _NETWORKS[style].format(
    name=_NAMES.get(name, name), classes=len(run.info.class_names)
  )
  return (
    'in PyTorch: from safetensors.torch import load_file; '
    f'model.load_state_dict(load_file({str(path)!r})), where model is {network}'
  )
