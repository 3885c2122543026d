"""`jaxvision summary`: the layers, shapes, parameters and FLOPs of a config's model."""

import argparse

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data, models
from jaxvision.commands.workdir import workdir_of
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training import pretrained, runtime
from jaxvision.training.opening import open_run
from jaxvision.training.parts import resolve_parts
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Prints the model of a config, or that of a run."""
  if config is not None and options.workdir:
    raise UserError('summary: give --config=FILE or --workdir=DIR, and not both')
  if config is None:
    print(describe(open_run(RunDirectory(workdir_of(options, config)))))
    return 0
  runtime.check_environment()
  config, _ = pretrained.begin(config_lib.freeze(config))
  parts = resolve_parts(config)
  dataset = data.load(config.data, source=parts.data)
  print(describe(Run.build(config, DatasetInfo.of(dataset), parts=parts)))
  return 0


def describe(run: Run) -> str:
  """Returns the layers, shapes, parameters and FLOPs of a run's model, and its fields."""
  config, plan, info = run.config, run.plan, run.info
  fields = models.defaults(config.model.name) | dict(config.model)
  name = fields.pop('name')
  settings = ', '.join(f'{field}={value!r}' for field, value in fields.items())
  tables = '\n\n'.join(map(str, run.task.summaries()))
  return (
    f'{tables}\n{len(info.class_names)} classes of {info.name}; {plan.total_steps} steps '
    f'of {plan.images_per_step} images; {config.optimizer.name}, {config.dtype}\n'
    f'config.model: {name}; fields: {settings or "none"}'
  )
