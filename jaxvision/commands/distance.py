"""`jaxvision distance`: the distance between two folders of images."""

import argparse
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxvision.data.decode import decode_image, image_header
from jaxvision.errors import UserError
from jaxvision.inference.extractors import find_extractor
from jaxvision.inference.image_files import find_images
from jaxvision.io import local_path
from jaxvision.metrics import generative
from jaxvision.training import runtime

_log = logging.getLogger(__name__)

_CHUNK = 100  # images decoded at a time


def command(options: argparse.Namespace, config: None) -> int:
  """Prints FID and related measures of two folders."""
  del config
  if len(options.inputs) != 2:
    raise UserError(
      'distance: name two folders, the generated images first and then the real ones'
    )
  generated, real = options.inputs
  scores = compare_folders(generated, real, options.features, options.resizer)
  text = json.dumps(scores.as_json(), indent=2, allow_nan=False)
  print(text if options.json else scores.line())
  return 0


def compare_folders(
  generated: str | Path,
  real: str | Path,
  features: str = 'inception',
  resizer: str = 'clean',
) -> generative.Scores:
  """Measures the images in one folder against those in another.

  All images of both folders, and of the folders in them, count. They are taken as they
  are, upright: all must have one size.

  Args:
    generated, real: the folders.
    features: as `evaluation.features`.
    resizer: as `evaluation.resizer`.

  Raises:
    UserError: no such folder, fewer than two images, images of several sizes, or no such
      features.
  """
  runtime.configure(deterministic=False)
  folders = [local_path(folder, 'distance') for folder in (generated, real)]
  paths = [find_images([str(folder)], 'distance') for folder in folders]
  for folder, found in zip(folders, paths):
    if len(found) < 2:
      raise UserError(
        f'distance: {folder} has {len(found)} images: a distance needs at least 2, and '
        'some thousands to mean something'
      )
  shape = _common_shape([*paths[0], *paths[1]])
  extractor = find_extractor(features, resizer, None, 'distance: --features')
  if extractor.image_shape:
    height, width, _ = extractor.image_shape
    if shape[:2] != (height, width):
      raise UserError(
        f'distance: the classifier in {features} takes images of {height}x{width}, these '
        f'are {shape[0]}x{shape[1]}'
      )
    shape = extractor.image_shape
  seen = [
    generative.compute_statistics(
      extractor, _decoded(found, shape), len(found), f'{len(found):,} images'
    )
    for found in paths
  ]
  fewest, dimensions = min(map(len, paths)), len(seen[0].moments.mean)
  if fewest <= dimensions:
    _log.warning(
      'distance: %s images are too few for the covariance of %s features, which is '
      'singular: the Fréchet distance is far from that of more images (take more than '
      '%s in each folder)',
      f'{fewest:,}',
      f'{dimensions:,}',
      f'{dimensions:,}',
    )
  names = [f'{folder} ({s.name})' for folder, s in zip(folders, seen)]
  return generative.compute_scores(
    extractor, seen[0], dataclasses.replace(seen[1], name=names[1])
  )


def _common_shape(paths: list[Path]) -> tuple[int, int, int]:
  """Returns (H, W, C) of all images as the decoder turns them: grey where all are.

  Raises:
    UserError: they are of several sizes, or one cannot be read.
  """
  size, all_grey = None, True
  for path in paths:
    height, width, grey = image_header(path)
    size = size or (height, width)
    if (height, width) != size:
      raise UserError(
        f'distance: {path} is {height}x{width} and the first image {size[0]}x{size[1]}: '
        'bring all to one size first, as the way of resizing changes the distance'
      )
    all_grey = all_grey and grey
  assert size is not None
  return *size, 1 if all_grey else 3


def _decoded(paths: list[Path], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
  """Yields uint8 [B, H, W, C] in the order of the paths."""
  for start in range(0, len(paths), _CHUNK):
    yield np.stack(
      [decode_image(path, shape) for path in paths[start : start + _CHUNK]]
    )
