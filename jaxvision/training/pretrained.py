"""Runs that start from weights: which ones, what they ask of the data, where they go."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvision import weights as weights_lib
from jaxvision.errors import UserError
from jaxvision.training.build import (
  DataFacts,
  abstract_variables,
  make_model,
  make_task,
  restore,
)
from jaxvision.training.mesh import make_mesh
from jaxvision.training.run_directory import RunDirectory
from jaxvision.weights import LoadedWeights, Preprocessing, Weights
from jaxvision.weights.tensors import fingerprint


@dataclasses.dataclass(frozen=True)
class Origin:
  """Where the weights of a run come from, for the run directory and the summary.

  Attributes:
    source: `init.pretrained`.
    name: what was found there.
    sha256: of the file; of the arrays where it is a run of ours.
    revision: of the repository, or None.
    facts: what the weights ask of the data.
  """

  source: str
  name: str
  sha256: str
  revision: str | None
  facts: Preprocessing

  @classmethod
  def from_dict(cls, values: dict[str, Any]) -> 'Origin':
    """Returns the origin that `dataclasses.asdict` wrote to JSON."""
    return cls(**{**values, 'facts': Preprocessing.of_json(values['facts'])})


def read(source: str) -> tuple[Origin, Weights]:
  """Returns the weights that `init.pretrained` names.

  Args:
    source: a file, a repository, or the directory of a run of ours, whose last
      checkpoint counts.

  Raises:
    UserError: there are no weights, or they cannot be read.
  """
  path = Path(source).expanduser()
  if path.is_dir():
    found = _of_run(RunDirectory(path))
  else:
    found = weights_lib.read(str(path) if path.exists() else source)
  return Origin(source, found.origin, found.sha256, found.revision, found.preprocessing), found


def _of_run(directory: RunDirectory) -> Weights:
  config, known = directory.config(), directory.dataset()
  if known is None:
    raise UserError(f'{directory.path} has no trained weights yet: train it first')
  data = DataFacts.from_dict(known)
  task, _ = make_task(config, data)
  state, step = restore(directory, task, make_mesh(data=1))
  found = Weights.of_variables(
    jax.device_get(state.eval_variables),
    f'{directory.path} (step {step})',
    facts_of(data),
    config.model.name,
  )
  return dataclasses.replace(found, sha256=fingerprint(found.tensors))


def facts_of(data: DataFacts) -> Preprocessing:
  """Returns what weights that were trained on such data ask of other data."""
  return Preprocessing(
    mean=data.mean,
    std=data.std,
    image_size=data.image_shape[0],
    crop_fraction=data.crop_fraction,
    interpolation=data.interpolation,
    class_names=data.class_names,
    channels=data.image_shape[-1],
  )


def adopt(config: ConfigDict, facts: Preprocessing) -> ConfigDict:
  """Returns the config with the normalisation and the image size of the weights.

  What the config sets itself stays.
  """
  config = ConfigDict(config.to_dict())
  fields, unset = config.data, {'crop_fraction': 0.0, 'interpolation': 'auto'}
  unset |= {'mean': (), 'std': (), 'image_size': 0}
  for name, empty in unset.items():
    wanted = getattr(facts, name)
    if fields[name] == empty and wanted is not None:
      fields[name] = wanted
  return config


class Start(NamedTuple):
  """The weights that a run starts from; None in a run that is past its start."""

  origin: Origin
  weights: Weights | None


def begin(
  config: ConfigDict, directory: RunDirectory | None = None
) -> tuple[ConfigDict, Start | None]:
  """Returns the config with what the pretrained weights ask for, and these.

  A run that has a checkpoint goes on without the file that it began with.
  """
  if not config.init.pretrained:
    return config, None
  known = directory.pretrained() if directory else None
  if known and any(directory.checkpoints.glob('[0-9]*')):
    start = Start(Origin.from_dict(known), None)
  else:
    start = Start(*read(config.init.pretrained))
  return adopt(config, start.origin.facts), start


def fit(weights: Weights, config: ConfigDict, facts: DataFacts) -> LoadedWeights:
  """Returns the model's variables, abstract where they are not out of `weights`.

  Raises:
    UserError: the weights do not fit the model, but for what `init.skip` says.
  """
  model = make_model(config, len(facts.class_names))
  variables = abstract_variables(model, facts.image_shape, config.dtype)
  return weights_lib.load(weights, variables, config.init.skip)


def insert(state: Any, fitted: LoadedWeights) -> Any:
  """Returns the state at step 0 with the weights in their places on the devices."""

  def replace(old: jax.Array, new: Any) -> jax.Array:
    if isinstance(new, jax.ShapeDtypeStruct):
      return old
    return jax.device_put(np.asarray(new, old.dtype), old.sharding)

  values = fitted.variables
  new = {'params': values['params'], 'batch_stats': values.get('batch_stats', {})}
  ema = jax.tree.map(replace, state.ema, new) if state.ema else state.ema
  return state.replace(
    params=jax.tree.map(replace, state.params, new['params']),
    batch_stats=jax.tree.map(replace, state.batch_stats, new['batch_stats']),
    ema=ema,
  )


def describe(origin: Origin, fitted: LoadedWeights) -> str:
  """Returns a line about what was taken from where."""
  fresh = sorted({name.split('/')[1] for name in fitted.fresh})
  return (
    f'pretrained: {origin.name}, {len(fitted.loaded)} arrays'
    + (f' of revision {origin.revision}' if origin.revision else '')
    + f', sha256 {origin.sha256[:12]}'
    + (f'; at random: {", ".join(fresh)}' if fresh else '')
  )
