"""From the config's word to the network that judges generated images."""

from pathlib import Path

import jax

from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.inference.predictor import Run
from jaxvision.metrics.feature_extractors import (
  FeatureExtractor,
  classifier_extractor,
  inception_extractor,
)
from jaxvision.training.build import make_model
from jaxvision.weights import inception
from jaxvision.weights.tensors import fingerprint, named


def find_judge(
  source: str, resizer: str, image_shape: tuple[int, int, int] | None, field: str
) -> FeatureExtractor:
  """Returns the judge that `evaluation.features`, or what `field` says, names.

  Args:
    source: 'inception', the file of its weights, or the workdir of a classifier.
    resizer: for Inception.
    image_shape: (H, W, C) of the images that it will see; None: any.
    field: whose value `source` is, for messages.

  Raises:
    UserError: there is nothing of the kind, or it takes other images.
  """
  path = Path(source).expanduser()
  if path.is_dir():
    return _of_run(path, image_shape, field)
  if source != 'inception' and not path.is_file():
    raise UserError(
      f'{field}: {source} is neither the workdir of a classifier, nor a file of '
      'Inception weights, nor the word inception'
    )
  variables, sha256 = inception.load('' if source == 'inception' else str(path))
  return inception_extractor(variables, sha256, resizer)


def find_classifier(
  workdir: str, image_shape: tuple[int, int, int], field: str
) -> FeatureExtractor:
  """Returns the judge by a classifier; raises UserError where it is none."""
  path = Path(workdir).expanduser()
  if not path.is_dir():
    raise UserError(f'{field}: {workdir} is no workdir of a classifier')
  return _of_run(path, image_shape, field)


def _of_run(
  path: Path, image_shape: tuple[int, int, int] | None, field: str
) -> FeatureExtractor:
  run = load_run(path)
  if not isinstance(run, Run):
    raise UserError(
      f'{field}: {path} is a run of task {run.config.task}: name that of a classifier'
    )
  if image_shape is not None and run.facts.image_shape != tuple(image_shape):
    shapes = [
      'x'.join(map(str, shape)) for shape in (run.facts.image_shape, image_shape)
    ]
    raise UserError(
      f'{field}: the classifier in {path} takes images of {shapes[0]}, these are '
      f'{shapes[1]}'
    )
  variables = jax.device_get(run.state.eval_variables)
  sha256 = fingerprint(named(variables), run.config.model.name)
  return classifier_extractor(
    make_model(run.config, len(run.facts.class_names)),
    variables,
    name=run.config.name or path.name,
    weights=f'features of {run.config.model.name} trained on {run.facts.name} '
    f'({run.step} steps, sha256 {sha256[:8]})',
    identity=f'classifier {sha256} {run.facts.mean} {run.facts.std}',
    mean=run.facts.mean,
    std=run.facts.std,
    class_names=run.facts.class_names,
    image_shape=run.facts.image_shape,
  )
