"""Models by name, and the fields that a config may set on them.

`create` makes a `flax.linen` module that maps normalised images, float [B, H, W, C],
and a flag `train` to logits, float32 [B, num_classes]. Its parameters are in the
collection 'params' and always float32; running statistics of batch norm, if it has
any, are in 'batch_stats'; dropout draws from the key named 'dropout'.

`features_and_logits` gives what goes into the classifier of any of them, `grad_cam` where
in an image it sees a class. Most are cut before their classifier by two methods:
`features`, images to float32 [B, D], and `classify`, features to logits, as in
`model.apply(variables, images, method='features')`; in plain ones `features` is the field
of the channels.

`create_gan` makes the two networks of a GAN and `create_flow` a flow, each from a table of
its own, `GANS` and `FLOWS`.

>>> import jax, jax.numpy as jnp
>>> model = create('small_filters_cnn', num_classes=100, activation='swish')
>>> images = jnp.zeros([2, 32, 32, 3])
>>> variables = jax.eval_shape(model.init, jax.random.key(0), images)
>>> jax.eval_shape(model.apply, variables, images).shape
(2, 100)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from jaxvision.errors import UserError
from jaxvision.models import (
  airbench,
  cct,
  cnn,
  convmixer,
  convnext,
  efficientnet,
  mobilenet,
  preact,
  resnet,
  vit,
)
from jaxvision.models.checking import (
  DTYPES,
  check_dtype,
  check_fields,
  check_num_classes,
  look_up,
)
from jaxvision.models.features_and_logits import features_and_logits
from jaxvision.models.flow import Flow
from jaxvision.models.generative import (
  FLOWS,
  GAN,
  GANS,
  TASK_OF,
  GenerativeModel,
  create_flow,
  create_gan,
  create_generative,
  flow_fields,
  gan_fields,
)
from jaxvision.models.grad_cam import grad_cam
from jaxvision.models.order import layer_order

__all__ = [
  'DTYPES',
  'FLOWS',
  'GAN',
  'GANS',
  'MODELS',
  'TASK_OF',
  'Flow',
  'GenerativeModel',
  'create',
  'create_flow',
  'create_gan',
  'create_generative',
  'defaults',
  'features_and_logits',
  'fields',
  'flow_fields',
  'gan_fields',
  'grad_cam',
  'layer_order',
]

MODELS: dict[str, Callable[..., nn.Module]] = {
  'small_filters_cnn': cnn.SmallFiltersCNN,
  'sim_cnn': cnn.SimCNN,
  'basic_cnn': cnn.BasicCNN,
  'original_cnn': cnn.OriginalCNN,
  'custom_cnn': cnn.CustomCNN,
  'mnist_cnn': cnn.MnistCNN,
  'digits_cnn': cnn.DigitsCNN,
  'resnet18': resnet.ResNet18,
  'resnet34': resnet.ResNet34,
  'resnet50': resnet.ResNet50,
  'resnet101': resnet.ResNet101,
  'resnet152': resnet.ResNet152,
  'resnet20': resnet.ResNet20,
  'resnet32': resnet.ResNet32,
  'resnet44': resnet.ResNet44,
  'resnet56': resnet.ResNet56,
  'resnet110': resnet.ResNet110,
  'preact_resnet18': preact.PreActResNet18,
  'preact_resnet34': preact.PreActResNet34,
  'preact_resnet50': preact.PreActResNet50,
  'wide_resnet16_8': preact.WideResNet16x8,
  'wide_resnet28_10': preact.WideResNet28x10,
  'wide_resnet40_4': preact.WideResNet40x4,
  'mobilenet_v2': mobilenet.MobileNetV2,
  'conv_mixer_256_8': convmixer.ConvMixer256x8,
  'convnext_atto': convnext.ConvNeXtAtto,
  'convnext_femto': convnext.ConvNeXtFemto,
  'convnext_tiny': convnext.ConvNeXtTiny,
  'vit_tiny': vit.ViTTiny,
  'vit_small': vit.ViTSmall,
  'vit_base': vit.ViTBase,
  'cct_2_3x2': cct.CCT2x3x2,
  'cct_4_3x2': cct.CCT4x3x2,
  'cct_6_3x1': cct.CCT6x3x1,
  'cct_7_3x1': cct.CCT7x3x1,
  'efficientnet_b0': efficientnet.EfficientNetB0,
  'efficientnet_b1': efficientnet.EfficientNetB1,
  'efficientnet_b2': efficientnet.EfficientNetB2,
  'efficientnet_b3': efficientnet.EfficientNetB3,
  'efficientnet_lite0': efficientnet.EfficientNetLite0,
  'airbench94': airbench.Airbench94,
  'airbench95': airbench.Airbench95,
  'airbench96': airbench.Airbench96,
}

# Set by `create` itself, or by linen.
_RESERVED = ('num_classes', 'dtype', 'parent', 'name')


def create(
  name: str, num_classes: int, dtype: str = 'float32', **fields: Any
) -> nn.Module:
  """Makes a model from the table.

  Args:
    name: a key of `MODELS`.
    num_classes: number of logits, at least 1.
    dtype: type of the computation, 'float32' or 'bfloat16'.
    **fields: fields of the model, those of `fields(name)`; a list is as good as a
      tuple, an int as a float.

  Returns:
    A linen module, called as `model.apply(variables, images, train=...)`.

  Raises:
    UserError: for an unknown model or field, or a value that the field cannot have.

  Examples:
    >>> create('basic_cnn', num_classes=10, dropout=0.25).dropout
    0.25
    >>> create('resnet19', num_classes=10)
    Traceback (most recent call last):
    ...
    jaxvision.errors.UserError: config: there is no model.name "resnet19", did you \
mean "resnet18"?
  """
  defaults = _defaults(name)
  return MODELS[name](
    num_classes=check_num_classes(num_classes),
    dtype=check_dtype(dtype),
    **check_fields(name, fields, defaults),
  )


def fields(name: str) -> dict[str, Any]:
  """Returns the fields that `create(name, ...)` accepts, with their defaults.

  Raises:
    UserError: if no model has that name.

  Example:
    >>> fields('resnet20')['shortcut']
    'A'
  """
  return dict(_defaults(name))


def defaults(name: str) -> dict[str, Any]:
  """Returns the fields of any model with their defaults; {} of a user's own."""
  if ':' in name:
    return {}
  if name in FLOWS:
    return flow_fields(name)
  return gan_fields(name) if name in GANS else fields(name)


# Under a second name, because `create` has an argument called `fields`.
def _defaults(name: str) -> dict[str, Any]:
  if name in TASK_OF:
    task, what = TASK_OF[name]
    raise UserError(f'config: model.name "{name}" is {what}: set task to "{task}"')
  constructor = look_up('model.name', name, MODELS)
  bound: dict[str, Any] = {}
  if isinstance(constructor, functools.partial):
    constructor, bound = constructor.func, constructor.keywords
  # A field without a default, such as the number of blocks, is what the name stands
  # for, and not the user's to change.
  return {
    field.name: bound.get(field.name, field.default)
    for field in dataclasses.fields(constructor)
    if field.name not in _RESERVED and field.default is not dataclasses.MISSING
  }
