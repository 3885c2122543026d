"""Trained classifiers that come with the package: weights, an int8 ONNX file, a card each."""

import dataclasses
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / 'trained'


@dataclasses.dataclass(frozen=True)
class Trained:
  """A trained classifier of the package.

  Attributes:
    name: of it, by which `--model` and `load_model` find it.
    facts: 'model', 'dataset', 'params', 'test_accuracy', 'int8_accuracy', as far as they
      are known.
  """

  name: str
  facts: dict[str, Any]

  @property
  def weights(self) -> Path:
    """The weights, as `jaxvision export` writes them."""
    return FOLDER / f'{self.name}.safetensors'

  @property
  def int8(self) -> Path:
    """The network in int8, as `jaxvision quantize` writes it."""
    return FOLDER / f'{self.name}.int8.onnx'

  @property
  def card(self) -> Path:
    """What it was trained on and how, its accuracy and its limits."""
    return FOLDER / f'{self.name}.md'

  @property
  def files(self) -> list[Path]:
    """Those of the three that are there."""
    return [p for p in (self.weights, self.int8, self.card) if p.is_file()]


def trained_models() -> dict[str, Trained]:
  """Returns the trained classifiers of the package by their names."""
  found = {}
  for path in sorted(FOLDER.glob('*.json')):
    found[path.stem] = Trained(path.stem, json.loads(path.read_text('utf-8')))
  return found


def find(name: str) -> Path | None:
  """Returns the file of a name: NAME for the weights, NAME.int8 for int8; None for none."""
  stem, _, variant = name.partition('.')
  model = trained_models().get(stem)
  if model is None or variant not in ('', 'int8'):
    return None
  path = model.int8 if variant else model.weights
  return path if path.is_file() else None
