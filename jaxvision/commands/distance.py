"""`jaxvision distance`: the distance between two folders of images."""

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxvision.data.decode import UnreadableImage, decode_image, image_header
from jaxvision.errors import UserError, printable
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
  unreadable: list[str] = []
  scores = compare_folders(
    generated, real, options.features, options.resizer, unreadable
  )
  values = scores.as_json()
  if unreadable:
    values['error'] = unreadable
  text = json.dumps(values, indent=2, allow_nan=False)
  print(text if options.json else printable(scores.line()))
  for message in unreadable:
    print(f'error: {message}', file=sys.stderr)
  return 2 if unreadable else 0


def compare_folders(
  generated: str | Path,
  real: str | Path,
  features: str = 'inception',
  resizer: str = 'clean',
  unreadable: list[str] | None = None,
) -> generative.Scores:
  """Measures the images in one folder against those in another.

  All images of both folders, and of the folders in them, count. They are taken as they
  are, upright: all must have one size.

  Args:
    generated, real: the folders.
    features: as `evaluation.features`.
    resizer: as `evaluation.resizer`.
    unreadable: takes a message for each image that cannot be read, which is left out;
      None: it raises.

  Raises:
    UserError: no such folder, fewer than two images, images of several sizes, or no such
      features; an image that cannot be read.
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
  shape = _common_shape([*paths[0], *paths[1]], unreadable)
  extractor = find_extractor(features, resizer, None, 'distance: --features')
  if extractor.image_shape:
    height, width, _ = extractor.image_shape
    if shape[:2] != (height, width):
      raise UserError(
        f'distance: the classifier in {features} takes images of {height}x{width}, these '
        f'are {shape[0]}x{shape[1]}'
      )
    shape = extractor.image_shape
  seen = []
  for folder, found in zip(folders, paths):
    bad: list[str] | None = None if unreadable is None else []
    statistics = generative.compute_statistics(
      extractor, _decoded(found, shape, bad), len(found), 'readable images'
    )
    count = len(found) - len(bad or ())
    if count < 2:
      raise UserError(f'distance: {folder} has one image that can be read: {bad[0]}')
    seen.append(dataclasses.replace(statistics, name=f'{count:,} images'))
    if unreadable is not None:
      unreadable += bad
  fewest = min(statistics.moments.count for statistics in seen)
  dimensions = len(seen[0].moments.mean)
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


def _common_shape(
  paths: list[Path], unreadable: list[str] | None
) -> tuple[int, int, int]:
  """Returns (H, W, C) of all images as the decoder turns them: grey where all are.

  Raises:
    UserError: they are of several sizes; none can be read, or one cannot and
      `unreadable` is None.
  """
  size, all_grey, failure = None, True, None
  for path in paths:
    try:
      height, width, grey = image_header(path)
    except UnreadableImage as error:
      if unreadable is None:
        raise
      failure = error
      continue
    size = size or (height, width)
    if (height, width) != size:
      raise UserError(
        f'distance: {path} is {height}x{width} and the first image {size[0]}x{size[1]}: '
        'bring all to one size first, as the way of resizing changes the distance'
      )
    all_grey = all_grey and grey
  if size is None:
    raise failure or UserError('distance: there are no images')
  return *size, 1 if all_grey else 3


def _decoded(
  paths: list[Path], shape: tuple[int, int, int], unreadable: list[str] | None
) -> Iterator[np.ndarray]:
  """Yields uint8 [B, H, W, C] in the order of the paths; B is at least 1."""
  for start in range(0, len(paths), _CHUNK):
    images = []
    for path in paths[start : start + _CHUNK]:
      try:
        images.append(decode_image(path, shape))
      except UnreadableImage as error:
        if unreadable is None:
          raise
        unreadable.append(str(error))
    if images:
      yield np.stack(images)
