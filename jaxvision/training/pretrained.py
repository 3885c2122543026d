"""Runs that start from weights: which ones, what they ask of the data, where they go."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import weights as weights_lib
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError, short
from jaxvision.placement import place
from jaxvision.training.opening import open_run
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory
from jaxvision.weights import LoadedWeights, Preprocessing, Weights
from jaxvision.weights.tensors import fingerprint


@dataclasses.dataclass(frozen=True)
class WeightsSource:
  """Where the weights of a run come from, for the run directory and the summary.

  Attributes:
    source: `init.pretrained`.
    name: what was found there.
    sha256: of the file; of the arrays where it is a run of ours.
    revision: of the repository, or None.
    facts: the preprocessing that the weights want.
  """

  source: str
  name: str
  sha256: str
  revision: str | None
  facts: Preprocessing

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'WeightsSource':
    """Returns the source that `dataclasses.asdict` wrote to JSON."""
    return cls(**{**values, 'facts': Preprocessing.of_json(values['facts'])})

  def short(self) -> dict[str, Any]:
    """Returns what summary.json says of it."""
    return {key: getattr(self, key) for key in ('source', 'name', 'sha256', 'revision')}


def read(source: str) -> tuple[WeightsSource, Weights]:
  """Returns the weights that `init.pretrained` names.

  Args:
    source: a file, a folder with one, a repository, or the directory of a run of
      ours, whose last checkpoint counts.

  Raises:
    UserError: there are no weights, or they cannot be read.
  """
  path = Path(source).expanduser()
  directory = RunDirectory(path)
  # A run may hold an exported file too.
  if path.is_dir() and (directory.dataset() or not weights_lib.in_folder(path)):
    found = _of_run(directory)
  else:
    found = weights_lib.read(source)
  return WeightsSource(
    source, found.origin, found.sha256, found.revision, found.preprocessing
  ), found


def _of_run(directory: RunDirectory) -> Weights:
  run = open_run(directory)
  state, step = run.restore()
  found = Weights.of_variables(
    jax.device_get(state.eval_variables),
    f'{directory.path} (step {step})',
    preprocessing_of(run.info, run.task.input_shape),
    run.config.model.name,
  )
  return dataclasses.replace(found, sha256=fingerprint(found.tensors))


def preprocessing_of(data: DatasetInfo, input_shape: tuple[int, ...]) -> Preprocessing:
  """Returns what weights that were trained on such data ask of other data.

  Args:
    data: what is known of them.
    input_shape: (H, W, C) of the images that the network sees.
  """
  return Preprocessing(
    mean=data.mean,
    std=data.std,
    image_size=input_shape[0],
    crop_fraction=data.crop_fraction,
    interpolation=data.interpolation,
    class_names=data.class_names,
    channels=data.image_shape[-1],
  )


def adopt(config: ConfigDict, preprocessing: Preprocessing) -> ConfigDict:
  """Returns the config with normalisation, image size and channels of the weights.

  What the config sets itself stays. Grey images become RGB for weights that were trained
  on RGB, unless the config has a mean for another number of channels. Where `resize.size`
  says what the model sees, the data keep the size that they have.
  """
  config = config_lib.thaw(config)
  fields, unset = config.data, {'mean': (), 'std': ()}
  if not config.resize.size:
    unset |= {'crop_fraction': 0.0, 'interpolation': 'auto', 'image_size': 0}
  for name, empty in unset.items():
    wanted = getattr(preprocessing, name)
    if fields[name] == empty and wanted is not None:
      fields[name] = wanted
  channels = preprocessing.channels or len(preprocessing.mean or ())
  if not fields.channels and channels in (1, 3) and len(fields.mean) in (0, channels):
    fields.channels = channels
  return config


class PretrainedStart(NamedTuple):
  """The weights that a run starts from; None in a run that is past its start."""

  origin: WeightsSource
  weights: Weights | None


def begin(
  config: ConfigDict, directory: RunDirectory | None = None
) -> tuple[ConfigDict, PretrainedStart | None]:
  """Returns the config with what the pretrained weights ask for, and these.

  A run that has a checkpoint goes on without the file that it began with.
  """
  if not config.init.pretrained:
    if config.init.skip:
      raise UserError(
        'config: init.skip says what of the weights of init.pretrained is left out, and '
        'init.pretrained is empty: set it, or leave init.skip empty'
      )
    return config, None
  known = directory.pretrained() if directory else None
  if known and any(directory.checkpoints.glob('[0-9]*')):
    start = PretrainedStart(WeightsSource.from_dict(known), None)
  else:
    start = PretrainedStart(*read(config.init.pretrained))
  return config_lib.freeze(adopt(config, start.origin.facts)), start


def match(weights: Weights, run: Run) -> LoadedWeights:
  """Returns the model's variables, abstract where they are not out of `weights`.

  Raises:
    UserError: the weights do not fit the model, but for what `init.skip` says; or the
      task has not one model.
  """
  if not isinstance(getattr(run.task, 'model', None), nn.Module):
    raise UserError(
      f'config: init.pretrained: task {run.config.task} starts from random weights'
    )
  return weights_lib.load(weights, run.task.abstract_variables(), run.config.init.skip)


def match_again(start: PretrainedStart, run: Run) -> LoadedWeights:
  """Returns the weights of a run that was killed while it wrote its first checkpoint.

  Raises:
    UserError: the source has changed.
  """
  began = start.origin
  origin, found = read(began.source)
  if origin.sha256 != began.sha256:
    raise UserError(
      f'init.pretrained: {began.source} is not what the run in {run.directory.path} '
      f'began with (sha256 {origin.sha256[:12]}, then {began.sha256[:12]}): start anew '
      'with --overwrite'
    )
  return match(found, run)


def insert(state: Any, loaded_weights: LoadedWeights) -> Any:
  """Returns the state at step 0 with the weights in their places on the devices."""

  def replace(old: jax.Array, new: Any) -> jax.Array:
    if isinstance(new, jax.ShapeDtypeStruct):
      return old
    return place(np.asarray(new, old.dtype), old.sharding)

  values = loaded_weights.variables
  new = {'params': values['params'], 'batch_stats': values.get('batch_stats', {})}
  ema = jax.tree.map(replace, state.ema, new) if state.ema else state.ema
  return state.replace(
    params=jax.tree.map(replace, state.params, new['params']),
    batch_stats=jax.tree.map(replace, state.batch_stats, new['batch_stats']),
    ema=ema,
  )


def describe(start: PretrainedStart, loaded: LoadedWeights, run: Run) -> str:
  """Returns a line about what was taken from where, and what images are normalised by."""
  origin, weights = start
  fresh = sorted({name.split('/')[1] for name in loaded.fresh})
  key = weights.key if weights and f'#{weights.key}' not in origin.name else ''
  left_out = ', '.join(map(short, weights.left_out[:3])) if weights else ''
  normal = (run.info.mean, run.info.std)
  mean, std = (' '.join(f'{x:.4g}' for x in values) for values in normal)
  whose = 'config' if run.config.data.mean else 'data set'
  if normal == (origin.facts.mean, origin.facts.std):
    whose = 'weights'
  return (
    f'pretrained: {origin.name}, {len(loaded.loaded)} arrays'
    + (f' under {short(key)}' if key else '')
    + (f' of revision {origin.revision}' if origin.revision else '')
    + f', sha256 {origin.sha256[:12]}'
    + (f'; at random: {", ".join(fresh)}' if fresh else '')
    + (f'; left out: {left_out}' if left_out else '')
    + f'; images are normalised by mean {mean}, std {std}, of the {whose}'
  )
