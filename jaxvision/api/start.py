"""How a command begins: with the weights that its config names, if any."""

from typing import NamedTuple

from ml_collections import ConfigDict

from jaxvision.engine import pretrained
from jaxvision.engine.rundir import RunDirectory
from jaxvision.weights import Weights


class Start(NamedTuple):
  """The weights that a run starts from; None in a run that is past its start."""

  origin: pretrained.Origin
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
    start = Start(pretrained.Origin.from_dict(known), None)
  else:
    start = Start(*pretrained.read(config.init.pretrained))
  return pretrained.adopt(config, start.origin.facts), start
