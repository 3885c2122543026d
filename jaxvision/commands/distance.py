"""`jaxvision distance`: the distance between two folders of images."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxvision.data.decode import UnreadableImage, decode_image, image_header
from jaxvision.errors import UserError, printable
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
  are: all must have one size.

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
  paths = [find_images([str(folder)], 'distance') for folder in (generated, real)]
  for folder, found in zip((generated, real), paths):
    if len(found) < 2:
      raise UserError(
        f'distance: {folder} has {len(found)} images: a distance needs at least 2, and '
        'some thousands to mean something'
      )
  shape = _first_shape(paths[0], unreadable)
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
  for folder, found in zip((generated, real), paths):
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
  names = [f'{Path(folder)} ({s.name})' for folder, s in zip((generated, real), seen)]
  return generative.compute_scores(
    extractor, seen[0], dataclasses.replace(seen[1], name=names[1])
  )


def _shape(path: Path) -> tuple[int, int, int]:
  """Returns (H, W, C) of an image file: 1 channel where it is grey, else 3."""
  height, width, grey = image_header(path)
  return height, width, 1 if grey else 3


def _first_shape(
  paths: list[Path], unreadable: list[str] | None
) -> tuple[int, int, int]:
  """Returns the shape of the first image; of the first readable, where others may be."""
  for path in paths[:-1]:
    try:
      return _shape(path)
    except UnreadableImage:
      if unreadable is None:
        raise
  return _shape(paths[-1])


def _decoded(
  paths: list[Path], shape: tuple[int, int, int], unreadable: list[str] | None
) -> Iterator[np.ndarray]:
  """Yields uint8 [B, H, W, C] in the order of the paths; B is at least 1."""
  for start in range(0, len(paths), _CHUNK):
    images = []
    for path in paths[start : start + _CHUNK]:
      try:
        found = _shape(path)
        images.append(decode_image(path, shape))
      except UnreadableImage as error:
        if unreadable is None:
          raise
        unreadable.append(str(error))
        continue
      if found[:2] != shape[:2]:
        sizes = [f'{height}x{width}' for height, width, _ in (found, shape)]
        raise UserError(
          f'distance: {path} is {sizes[0]} and the first image {sizes[1]}: bring all to '
          'one size first, as the way of resizing changes the distance'
        )
    if images:
      yield np.stack(images)
