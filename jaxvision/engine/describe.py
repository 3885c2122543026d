"""What a config builds, before anything trains."""

from typing import Any

from ml_collections import ConfigDict

from jaxvision import data, models
from jaxvision.engine import pretrained
from jaxvision.engine.setup import DataFacts, make_model, make_task
from jaxvision.models.summary import summarize


def describe_model(config: ConfigDict, known: dict[str, Any] | None = None) -> str:
  """Returns the layers, shapes, parameters and FLOPs of a config's model, and its fields.

  Args:
    config: of a run.
    known: the run's dataset.json; None: the data are loaded for their shape and classes.

  Raises:
    UserError: the config or the data are not usable.
  """
  if known:
    facts = DataFacts.from_dict(known)
  else:
    config, _ = pretrained.begin(config)
    facts = DataFacts.of(data.load(config.data))
  _, plan = make_task(config, facts)
  model = make_model(config, len(facts.class_names))
  fields = models.fields(config.model.name) | config.model.to_dict()
  name = fields.pop('name')
  settings = ', '.join(f'{field}={value!r}' for field, value in fields.items())
  return (
    f'{summarize(model, facts.image_shape)}\n'
    f'{len(facts.class_names)} classes of {facts.name}; {plan.total} steps of '
    f'{config.batch_size} images; {config.optimizer.name}, {config.dtype}\n'
    f'config.model: {name}; fields: {settings}'
  )
