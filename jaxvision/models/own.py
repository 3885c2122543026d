"""Models of the user's own: built from the fields of a config, called like ours."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvision.config import parts
from jaxvision.errors import UserError, closest

# What `build` passes where the constructor has such a parameter.
_OFFERED = ('num_classes', 'dtype')
_COLLECTIONS = {'params', 'batch_stats', 'intermediates'}


def build(
  constructor: Any, num_classes: int, dtype: str, fields: Mapping[str, Any]
) -> nn.Module:
  """Returns a user's linen module.

  Args:
    constructor: a linen module class, a function that returns a module, or a module.
    num_classes: passed where the constructor has a parameter of this name.
    dtype: likewise, as a `jnp.dtype`.
    fields: the config's `model.*`, without the name.

  Raises:
    UserError: it takes no such field, lacks one, or makes something else.
  """
  if isinstance(constructor, nn.Module):
    if fields:
      raise UserError(
        f'config: model.{next(iter(fields))}: the model was passed as an object, which '
        'has its fields already'
      )
    return with_train(constructor)
  if not callable(constructor):
    raise UserError(
      f'config: model.name must be a linen module class or a function that returns a '
      f'module, not {constructor!r}'
    )
  takes = inspect.signature(constructor).parameters
  anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
  known = [name for name in takes if name not in (*_OFFERED, 'parent', 'name')]
  for field in fields:
    if field not in known and not anything:
      hint = closest(field, known) or f' (its fields: {", ".join(known) or "none"})'
      raise UserError(
        f'config: model {parts.describe(constructor)} has no field "{field}"{hint}'
      )
  offered = {'num_classes': num_classes, 'dtype': jnp.dtype(dtype)}
  options = {k: v for k, v in offered.items() if k in takes} | dict(fields)
  model = parts.call('model.name', constructor, **options)
  if not isinstance(model, nn.Module):
    raise UserError(
      f'config: model.name: {parts.describe(constructor)} returned '
      f'{type(model).__name__}, not a flax.linen module'
    )
  return with_train(model)


def fields_of(model: nn.Module) -> dict[str, Any]:
  """Returns the fields of a module as a config holds them, those at their default not.

  Raises:
    UserError: the value of a field is no number, string, bool, or tuple of these.
  """
  found = {}
  for field in dataclasses.fields(model):
    if field.name in (*_OFFERED, 'parent', 'name') or not field.init:
      continue
    value = getattr(model, field.name)
    if value is field.default:
      continue
    if not all(
      isinstance(leaf, bool | int | float | str) for leaf in jax.tree.leaves(value)
    ) or isinstance(value, Mapping):
      raise UserError(
        f'config: model.{field.name} is {value!r:.80}, which config.json cannot hold: '
        f'pass a function that returns {parts.describe(type(model))} instead'
      )
    found[field.name] = value
  return found


def with_train(model: nn.Module) -> nn.Module:
  """Returns a module that is called as `model(images, train)`, as ours are.

  Linen modules are told whether they train by `train`, `training`, or the opposite,
  `deterministic`; one without any of them behaves the same either way.
  """
  original = type(model)
  takes = inspect.signature(original.__call__).parameters
  if 'train' in takes:
    return model

  def call(self, images, train=False):
    arguments = {}
    if 'training' in takes:
      arguments['training'] = train
    elif 'deterministic' in takes:
      arguments['deterministic'] = not train
    return original.__call__(self, images, **arguments)

  return subclass_like(model, original, {'__call__': call})


def subclass_like(
  model: nn.Module, original: type[nn.Module], methods: Mapping[str, Any]
) -> nn.Module:
  """Returns a module with the fields of `model` and other methods.

  Args:
    model: an instance of `original` or of a subclass of it.
    original: the class to derive from; the name and the file of the new one are its.
    methods: name -> function.
  """
  made = type(original.__name__, (original,), dict(methods))
  made.__module__ = original.__module__
  made.__qualname__ = original.__qualname__
  if '__firstlineno__' in vars(original):  # where Python 3.13 finds its source
    made.__firstlineno__ = original.__firstlineno__
  fields = [f.name for f in dataclasses.fields(model) if f.init and f.name != 'parent']
  return made(**{name: getattr(model, name) for name in fields})


def check(
  model: nn.Module,
  image_shape: tuple[int, ...],
  dtype: str,
  outputs: tuple[int, ...] | None,
) -> None:
  """Runs a user's model on abstract images; nothing is computed.

  Args:
    model: the module.
    image_shape: (H, W, C).
    dtype: of the images.
    outputs: the shape that it must return for one image; None: any.

  Raises:
    UserError: with the user's file and line, the model raises, returns something else,
      or has variables that training would not update.
  """
  images = jax.ShapeDtypeStruct((2, *image_shape), jnp.dtype(dtype))
  name = parts.describe(type(model))

  def run(images):
    key = jax.random.key(0)
    variables = model.init({'params': key, 'dropout': key}, images, train=False)
    result, _ = model.apply(
      variables,
      images,
      train=True,
      rngs={'dropout': key},
      mutable=['batch_stats', 'intermediates'],
    )
    return variables, result

  variables, result = parts.call('model.name', jax.eval_shape, run, images)
  unknown = set(variables) - _COLLECTIONS
  if unknown:
    raise UserError(
      f'config: model {name} has variables in the collection "{min(unknown)}", which '
      'training would not update: use params and batch_stats'
    )
  if 'params' not in variables:
    raise UserError(f'config: model {name} has no parameters')
  if outputs is None:
    return
  expected = (2, *outputs)
  if not hasattr(result, 'shape') or tuple(result.shape) != expected:
    got = tuple(result.shape) if hasattr(result, 'shape') else type(result).__name__
    raise UserError(
      f'config: model {name} returned {got} for a batch of 2 images of '
      f'{"x".join(map(str, image_shape))}, not {expected}: it must have one output per '
      'class'
    )
