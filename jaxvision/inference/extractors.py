"""Feature extractors by the name that a config has for them."""

from pathlib import Path

import jax

from jaxvision.errors import UserError
from jaxvision.inference.loading import load_run
from jaxvision.inference.predictor import Predictor
from jaxvision.metrics.feature_extractors import (
  FeatureExtractor,
  classifier_extractor,
  inception_extractor,
)
from jaxvision.weights import inception
from jaxvision.weights.tensors import fingerprint, named


def find_extractor(
  source: str, resizer: str, image_shape: tuple[int, int, int] | None, field: str
) -> FeatureExtractor:
  """Returns the network that `evaluation.features`, or what `field` says, names.

  Args:
    source: 'inception', the file of its weights, or the workdir of a classifier.
    resizer: for Inception.
    image_shape: (H, W, C) of the images that it gets; None: any.
    field: whose value `source` is, for messages.

  Raises:
    UserError: there is no such network, or it takes other images.
  """
  path = Path(source).expanduser()
  if path.is_dir():
    return find_classifier(source, image_shape, field)
  if source != 'inception' and not path.is_file():
    raise UserError(
      f'{field}: {source} is neither the workdir of a classifier, nor a file of '
      'Inception weights, nor the word inception'
    )
  variables, sha256 = inception.load('' if source == 'inception' else str(path))
  return inception_extractor(variables, sha256, resizer)


def find_classifier(
  workdir: str, image_shape: tuple[int, int, int] | None, field: str
) -> FeatureExtractor:
  """Returns the features of a trained classifier; raises UserError where it is none."""
  path = Path(workdir).expanduser()
  if not path.is_dir():
    raise UserError(f'{field}: {workdir} is no workdir of a classifier')
  run = load_run(path)
  if not isinstance(run, Predictor) or run.info.label_kind != 'class':
    raise UserError(
      f'{field}: {path} is a run of task {run.config.task}: name that of a classifier'
    )
  if image_shape is not None and run.info.image_shape != tuple(image_shape):
    shapes = [
      'x'.join(map(str, shape)) for shape in (run.info.image_shape, image_shape)
    ]
    raise UserError(
      f'{field}: the classifier in {path} takes images of {shapes[0]}, these are '
      f'{shapes[1]}'
    )
  variables = jax.device_get(run.state.eval_variables)
  sha256 = fingerprint(named(variables), run.config.model.name)
  return classifier_extractor(
    run.task.model,
    variables,
    name=run.config.name or path.name,
    weights=f'features of {run.config.model.name} trained on {run.info.name} '
    f'({run.step} steps, sha256 {sha256[:8]})',
    identity=f'classifier {sha256} {run.info.mean} {run.info.std}',
    mean=run.info.mean,
    std=run.info.std,
    class_names=run.info.class_names,
    image_shape=run.info.image_shape,
  )
