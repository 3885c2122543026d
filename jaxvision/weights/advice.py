"""Advice for weights that do not match a model: the config fields that would help."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from jaxvision import models
from jaxvision.weights import naming
from jaxvision.weights.tensors import Weights

_STEM = 'params/stem_conv/kernel'
_STEMS = {(7, 7): 'imagenet', (3, 3): 'cifar'}
_MOST_PATTERNS = 6  # more patterns to skip than these are no help


def suggestion(
  weights: Weights,
  here: Mapping[str, Any],
  *,
  matching: Iterable[str],
  missing: Iterable[str],
  others: Iterable[str],
) -> str:
  """Returns the end of a message: the fields to set for the weights to match.

  Args:
    weights: the weights that do not match.
    here: our name -> variable of the model.
    matching: names of what both have in the same shape.
    missing: names of variables that the weights lack.
    others: names of tensors that the model lacks, or has in another shape.
  """
  keep, lack = set(map(_path, matching)), set(map(_path, missing))
  rest = lack | set(map(_path, others))
  model = _other_model(weights, here)
  settings = [f'model.name={model}'] if model else []
  if model:  # a head of other classes will still not match
    rest &= {'head/bias'} & set(map(_path, here))
  elif not keep:
    return '; these are the weights of another model'
  if stem := _other_stem(weights, here, model):
    settings.append(f'model.stem={stem}')
    rest = {path for path in rest if not path.startswith('stem_conv/')}
  shortcuts = {path for path in rest if '/shortcut_' in path}
  only = all(path.startswith('head/') for path in rest - shortcuts)
  if shortcuts and only and (shortcuts <= lack or not shortcuts & lack):
    settings.append(f'model.shortcut={"A" if shortcuts <= lack else "B"}')
    rest -= shortcuts
  patterns = _patterns(rest, keep)
  if len(patterns) > _MOST_PATTERNS:
    return '; these are the weights of another model'
  random = '' if settings else 'to start these at random, '
  if patterns:
    quoted = ', '.join(f'"{pattern}"' for pattern in patterns)
    value = shlex.quote(patterns[0] if len(patterns) == 1 else f'({quoted})')
    settings.append(f'init.skip={value}')
  start = f'; they look like {model}, set' if model else f'; {random}set'
  return f'{start} ' + ' and '.join(f'--config.{setting}' for setting in settings)


def _path(name: str) -> str:
  """Returns the path of a variable here, or the name itself if no rule has it."""
  return (naming.to_ours(name) or f'/{name}').partition('/')[2]


def _blocks(names: Iterable[str]) -> tuple[tuple[int, ...], bool]:
  """Returns the blocks of each stage of a ResNet, and whether they are bottlenecks."""
  ours = [naming.to_ours(name) or '' for name in names]
  return naming.stage_sizes(ours), any('/conv3/' in name for name in ours)


def _other_model(weights: Weights, here: Mapping[str, Any]) -> str | None:
  """Returns the model of our table whose weights these are, if it is another one."""
  theirs, ours = _blocks(weights.tensors), _blocks(here)
  if not theirs[0]:
    return weights.model if ours[0] and weights.model in models.MODELS else None
  if theirs == (ours[0][: len(theirs[0])], ours[1]):  # all of it, or the first stages
    return None
  for name, constructor in models.MODELS.items():
    fields = getattr(constructor, 'keywords', {})
    stages, block = fields.get('stage_sizes', ()), fields.get('block')
    if block and theirs == (tuple(stages), block.expansion > 1):
      return name
  return None


def _other_stem(
  weights: Weights, here: Mapping[str, Any], model: str | None
) -> str | None:
  """Returns the stem of the weights if it is not that of the model, or of `model`."""
  for name, array in weights.tensors.items():
    if naming.to_ours(name) == _STEM:
      theirs = _STEMS.get(naming.layout_to_ours(name, array).shape[:2])
      ours = models.fields(model).get('stem') if model else theirs
      if _STEM in here:
        ours = _STEMS.get(here[_STEM].shape[:2])
      return theirs if theirs != ours else None
  return None


def _patterns(rest: set[str], keep: set[str]) -> list[str]:
  """Returns patterns, as few as possible, for all of `rest` and nothing of `keep`."""

  def layer(path: str) -> str:
    return re.split(r'[/.]', path)[0]

  def stage(path: str) -> str:
    return re.sub(r'^(stage\d+_)block\d+$', r'\1.*', layer(path))

  patterns = set()
  for path in rest:
    if layer(path) in map(layer, keep) and layer(path) != 'head':
      patterns.add(re.escape(path))
    else:
      whole = stage(path) not in map(stage, keep)
      patterns.add(stage(path) if whole else layer(path))
  return sorted(patterns, key=lambda pattern: (pattern == 'head', pattern))
