"""`jaxvision models`: the trained classifiers that come with the package."""

import argparse
import shutil

from ml_collections import ConfigDict

from jaxvision.errors import UserError, closest
from jaxvision.inference.trained import Trained, trained_models
from jaxvision.io import output_directory, writing


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Lists them, prints the card of one, or copies its files."""
  known = trained_models()
  if not options.inputs:
    if options.copy:
      raise UserError('models: --copy: name the models to copy')
    for line in table(known):
      print(line)
    return 0
  for name in options.inputs:
    if name not in known:
      raise UserError(
        f'models: there is no trained model "{name}"{closest(name, known)} (models: '
        f'{", ".join(known)})'
      )
  if options.copy:
    folder = output_directory(options.copy, 'models: --copy')
    with writing(folder, 'models: --copy'):
      folder.mkdir(parents=True, exist_ok=True)
      for name in options.inputs:
        for file in known[name].files:
          shutil.copyfile(file, folder / file.name)
          print(f'copied: {folder / file.name}')
    return 0
  print(
    '\n'.join(known[name].card.read_text('utf-8') for name in options.inputs), end=''
  )
  return 0


def table(models: dict[str, Trained]) -> list[str]:
  """Returns the models as lines of text, the first being the heads of the columns."""
  lines = [
    ('name', 'data', 'network', 'parameters', 'accuracy', 'int8', 'size', 'int8')
  ]
  for name, model in models.items():
    facts = model.facts
    lines.append(
      (
        name,
        str(facts['dataset']),
        str(facts['model']),
        f'{facts["params"]:,}',
        f'{facts["test_accuracy"]:.2%}',
        f'{facts["int8_accuracy"]:.2%}',
        *(
          f'{file.stat().st_size / 1e6:.2f} MB' for file in (model.weights, model.int8)
        ),
      )
    )
  widths = [max(map(len, column)) for column in zip(*lines)]
  return [
    '  '.join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines
  ]
