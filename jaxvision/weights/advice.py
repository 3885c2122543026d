"""Advice for weights that do not match a model: the config fields that would help."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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


class _Kind(NamedTuple):
  """What models of the table differ in, as far as the names and shapes of weights say.

  Attributes:
    stages: the number of blocks in each stage; () where there are no stages.
    bottleneck: whether the blocks are a ResNet's bottlenecks.
    inverted: whether they are inverted residuals.
    attention: whether these have squeeze and excitation.
    features: channels of the convolution behind them; None where it is not there.
  """

  stages: tuple[int, ...]
  bottleneck: bool = False
  inverted: bool = False
  attention: bool = False
  features: int | None = None

  @classmethod
  def of(cls, tensors: Mapping[str, Any]) -> '_Kind':
    """Returns the kind of arrays, or of variables of ours, by their names."""
    ours = {naming.to_ours(name) or '': name for name in tensors}
    last = ours.get('params/last_conv/kernel')
    shape = naming.layout_to_ours(last, tensors[last]).shape if last else ()
    return cls(
      naming.stage_sizes(ours),
      bottleneck=any('/conv3/' in name for name in ours),
      inverted=any('/depthwise_conv/' in name for name in ours),
      attention=any('/attention/' in name for name in ours),
      features=shape[-1] if shape else None,
    )

  @classmethod
  def of_model(cls, name: str) -> '_Kind':
    """Returns the kind of a model of the table with its default fields."""
    bound = getattr(models.MODELS[name], 'keywords', {})
    fields = models.fields(name)
    if 'expansions' in fields:
      return cls(
        fields['depths'],
        inverted=True,
        attention=fields['attention'],
        features=fields['last_width'],
      )
    expansion = bound['block'].expansion if 'block' in bound else 1
    return cls(bound.get('stage_sizes', ()), bottleneck=expansion > 1)


def _other_model(weights: Weights, here: Mapping[str, Any]) -> str | None:
  """Returns the model of our table whose weights these are, if it is another one."""
  theirs, ours = _Kind.of(weights.tensors), _Kind.of(here)
  if not theirs.stages:
    return weights.model if ours.stages and weights.model in models.MODELS else None
  first = ours._replace(stages=ours.stages[: len(theirs.stages)])
  if theirs in (first, first._replace(features=None)):  # all of it, or the first stages
    return None
  for name in models.MODELS:
    if theirs == _Kind.of_model(name):
      return name
  return None


def _other_stem(
  weights: Weights, here: Mapping[str, Any], model: str | None
) -> str | None:
  """Returns the stem of the weights if it is not that of the model, or of `model`.

  Those of inverted residuals differ in their stride alone, which no weight tells.
  """
  for name, array in weights.tensors.items():
    if naming.to_ours(name) == _STEM and not _Kind.of(weights.tensors).inverted:
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
