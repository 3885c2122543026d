"""What a config builds, before anything trains."""

from typing import Any

from ml_collections import ConfigDict

from jaxvision import data, models
from jaxvision.models.summary import summarize, summarize_gan
from jaxvision.training import pretrained
from jaxvision.training.build import DataFacts, make_model, make_networks, make_task


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
  is_gan = config.task == 'gan'
  defaults = models.gan_fields if is_gan else models.fields
  fields = defaults(config.model.name) | config.model.to_dict()
  name = fields.pop('name')
  settings = ', '.join(f'{field}={value!r}' for field, value in fields.items())
  if is_gan:
    tables = summarize_gan(make_networks(config, facts), facts.image_shape)
  else:
    tables = (summarize(make_model(config, len(facts.class_names)), facts.image_shape),)
  return (
    '\n\n'.join(map(str, tables))
    + f'\n{len(facts.class_names)} classes of {facts.name}; {plan.total} steps of '
    f'{plan.images} images; {config.optimizer.name}, {config.dtype}\n'
    f'config.model: {name}; fields: {settings}'
  )


def flops_per_image(config: ConfigDict, known: dict[str, Any] | None) -> int | None:
  """Returns the FLOPs of one image forward, of a GAN of one sample; None if not known.

  Args:
    config: of a run.
    known: the run's dataset.json.
  """
  if not known:
    return None
  facts = DataFacts.from_dict(known)
  if config.task == 'gan':
    return summarize_gan(make_networks(config, facts), facts.image_shape)[0].flops
  return summarize(make_model(config, len(facts.class_names)), facts.image_shape).flops
