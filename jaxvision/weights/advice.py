"""What to say to someone whose weights do not fit: which fields would mend it."""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from jaxvision import models
from jaxvision.weights import naming
from jaxvision.weights.tensors import Weights

_STEM = 'params/stem_conv/kernel'
_STEMS = {(7, 7): 'imagenet', (3, 3): 'cifar'}
_PATTERNS = 6  # a suggested skip of more than these is no advice


@dataclasses.dataclass(frozen=True)
class Misfit:
  """What has no counterpart.

  Attributes:
    missing: our names of variables without a tensor.
    unexpected: names in the weights of tensors without a variable.
    misshapen: our names of those that differ in shape.
  """

  missing: tuple[str, ...]
  unexpected: tuple[str, ...]
  misshapen: tuple[str, ...]


def way_out(
  weights: Weights,
  here: Mapping[str, Any],
  given: Mapping[str, str],
  misfit: Misfit,
) -> str:
  """Returns the end of a message: what to set for the weights to fit.

  Args:
    weights: those that do not fit.
    here: our name -> variable.
    given: our name -> name in the weights, of those that are in both.
    misfit: see there.
  """
  # Paths here, or names there of what no rule knows.
  misshapen = {_path(name) for name in misfit.misshapen}
  missing = {_path(name) for name in misfit.missing}
  rest = missing | misshapen | {_path(name) for name in misfit.unexpected}
  fitting = {_path(name) for name in given} - misshapen
  theirs, ours = _look(weights.tensors), _look(here)
  model = _other_model(weights, theirs, ours)
  others = 'these are the weights of another model'
  settings: list[str] = []
  if model:
    others = f'they look like {model}'
    settings.append(f'--config.model.name={model}')
    # A head of as many classes will fit once the features in front of it do.
    rest = {'head'} if 'head/bias' in misshapen else set()
  elif not fitting:
    return f'; {others}'
  elif theirs and ours and not _is_part(theirs, ours):
    return f'; they look like {theirs}, which is none of our models'

  if stem := _other_stem(weights, here, model):
    settings.append(f'--config.model.stem={stem}')
    rest = {path for path in rest if not path.startswith('stem_conv/')}
  if shortcut := _other_shortcut(rest, misfit):
    settings.append(f'--config.model.shortcut={shortcut}')
    rest = {path for path in rest if '/shortcut_' not in path}
  if rest:
    patterns = _patterns(rest, fitting)
    if len(patterns) > _PATTERNS:
      return f'; {others}'
    skip = f'--config.init.skip={_as_value(patterns)}'
    if not settings:
      return f'; to start these at random, set {skip}'
    settings.append(skip)
  chosen = ' and '.join(settings)
  return f'; {others}, set {chosen}' if model else f'; set {chosen}'


def _as_value(patterns: list[str]) -> str:
  """Returns patterns as a shell wants to be given a tuple of them."""
  quoted = ', '.join(f'"{pattern}"' for pattern in patterns)
  return shlex.quote(patterns[0] if len(patterns) == 1 else f'({quoted})')


def _path(name: str) -> str:
  ours = naming.to_ours(name)
  return ours.partition('/')[2] if ours else name


@dataclasses.dataclass(frozen=True)
class _Look:
  """A ResNet as its names tell it."""

  stages: tuple[int, ...]
  is_bottleneck: bool

  def __str__(self) -> str:
    blocks = ', '.join(str(size) for size in self.stages)
    return (
      f'a ResNet of {blocks} {"bottleneck" if self.is_bottleneck else "basic"} blocks'
    )


def _look(names: Iterable[str]) -> _Look | None:
  names = list(names)
  stages = naming.stage_sizes(names)
  deep = any('/conv3/' in (naming.to_ours(name) or '') for name in names)
  return _Look(stages, deep) if stages else None


def _other_model(
  weights: Weights, theirs: _Look | None, ours: _Look | None
) -> str | None:
  """Returns the model in our table whose weights these are, if that is not ours."""
  if theirs is None:
    return weights.model if ours and weights.model in models.MODELS else None
  if ours and _is_part(theirs, ours):
    return None
  table = {}
  for name, constructor in models.MODELS.items():
    fields = getattr(constructor, 'keywords', {})
    if 'stage_sizes' in fields and 'block' in fields:
      deep = fields['block'].expansion > 1
      table[name] = _Look(tuple(fields['stage_sizes']), deep)
  same = [name for name, look in table.items() if look == theirs]
  parts = [name for name, look in table.items() if _is_part(theirs, look)]
  return next(iter(same + parts), None)


def _is_part(theirs: _Look, ours: _Look) -> bool:
  """Returns whether these may be the first stages of ours."""
  same = ours.stages[: len(theirs.stages)] == theirs.stages
  return same and theirs.is_bottleneck == ours.is_bottleneck


def _other_stem(
  weights: Weights, here: Mapping[str, Any], model: str | None
) -> str | None:
  """Returns the stem to choose, if theirs is not ours, or not that of `model`."""
  for name, array in weights.tensors.items():
    if naming.to_ours(name) == _STEM:
      theirs = _STEMS.get(naming.layout_to_ours(name, array).shape[:2])
      if _STEM in here:
        ours = _STEMS.get(here[_STEM].shape[:2])
      else:
        ours = models.fields(model).get('stem') if model else theirs
      return theirs if theirs != ours else None
  return None


def _other_shortcut(rest: set[str], misfit: Misfit) -> str | None:
  """Returns the kind of shortcut to choose if theirs and ours differ in that alone."""
  shortcuts = {path for path in rest if '/shortcut_' in path}
  if not shortcuts or any(not p.startswith('head/') for p in rest - shortcuts):
    return None
  if shortcuts <= {_path(name) for name in misfit.missing}:
    return 'A'
  return 'B' if shortcuts <= {_path(name) for name in misfit.unexpected} else None


def _patterns(rest: set[str], fitting: set[str]) -> list[str]:
  """Returns few patterns that mean all of `rest` and nothing that fits."""

  def group(path: str) -> str:
    return re.split(r'[/.]', path)[0]

  def stage(layer: str) -> str | None:
    match = re.match(r'(stage\d+_)block\d+$', layer)
    return match[1] + '.*' if match else None

  whole = {group(path) for path in fitting}
  whole_stages = {stage(layer) for layer in whole}
  patterns = set()
  for path in rest:
    layer = group(path)
    if layer in whole and layer != 'head':
      patterns.add(re.escape(path))
    else:
      stages = stage(layer)
      patterns.add(stages if stages and stages not in whole_stages else layer)
  # In the order of the network, as far as names tell it.
  return sorted(patterns, key=lambda pattern: (pattern == 'head', pattern))
