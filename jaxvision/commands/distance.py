"""`jaxvision distance`: the distance between two folders of images."""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvision.data.decode import decode_image
from jaxvision.errors import UserError
from jaxvision.inference.extractors import find_extractor
from jaxvision.inference.image_files import find_images
from jaxvision.metrics import generative
from jaxvision.training import runtime

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
  are: all must have one size.

  Args:
    generated, real: the folders.
    features: as `evaluation.features`.
    resizer: as `evaluation.resizer`.

  Raises:
    UserError: no such folder, fewer than two images, images of several sizes, or no such
      features.
  """
  runtime.configure(deterministic=False)
  paths = [find_images([str(folder)], 'distance') for folder in (generated, real)]
  for folder, found in zip((generated, real), paths):
    if len(found) < 2:
      raise UserError(
        f'distance: {folder} has {len(found)} images: a distance needs at least 2, and '
        'some thousands to mean something'
      )
  shape = _shape(paths[0][0])
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
  names = [f'{Path(folder)} ({s.name})' for folder, s in zip((generated, real), seen)]
  return generative.compute_scores(
    extractor, seen[0], dataclasses.replace(seen[1], name=names[1])
  )


def _shape(path: Path) -> tuple[int, int, int]:
  """Returns (H, W, C) of an image file: 1 channel where it is grey, else 3."""
  try:
    with Image.open(path) as image:
      channels = 1 if image.mode in ('1', 'L', 'I;16') else 3
      return image.height, image.width, channels
  except OSError as error:
    raise UserError(f'distance: {path} is no image that can be read') from error


def _decoded(paths: list[Path], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
  """Yields uint8 [B, H, W, C] in the order of the paths."""
  for start in range(0, len(paths), _CHUNK):
    images = []
    for path in paths[start : start + _CHUNK]:
      found = _shape(path)
      if found[:2] != shape[:2]:
        sizes = [f'{height}x{width}' for height, width, _ in (found, shape)]
        raise UserError(
          f'distance: {path} is {sizes[0]} and the first image {sizes[1]}: bring all to '
          'one size first, as the way of resizing changes the distance'
        )
      images.append(decode_image(path, shape))
    yield np.stack(images)
