"""The files of an exploration: HTML, JSON and the pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvision.data.dataset import read_many
from jaxvision.data.sources.image_headers import Headers
from jaxvision.io import write_all
from jaxvision.reports import html, image_grid, style
from jaxvision.reports.dataset import plots
from jaxvision.reports.dataset.duplicates import EVIDENCE, KINDS, SIDE
from jaxvision.reports.dataset.exploration import DuplicatePair, Exploration, Split

SHOWN_PAIRS = 24  # of each group
LISTED_PAIRS = 10_000  # in explore.json
_THUMBNAIL = 96  # pixels a side of an image on the page, at most

# Groups of pairs on the page: key, title.
_GROUPS = (
  ('conflict', 'Two labels'),
  ('leak', 'Across splits, one label'),
  ('identical', 'Identical, within a split'),
  ('near', 'Nearly identical, within a split'),
  ('mirrored', 'Mirrored, within a split'),
)


def write_exploration(directory: str | Path, explored: Exploration) -> Path:
  """Writes an exploration into a directory.

  The files are explore.html, which needs no other file, explore.json and the pictures as
  PNG. Each is replaced as a whole. Pictures of an earlier exploration that have no
  successor are removed.

  Args:
    directory: is created if it does not exist.
    explored: the exploration.

  Returns:
    Path of explore.html.
  """
  charts = _charts(explored)
  samples, pairs = _samples(explored), _pairs(explored)
  augmented = _augmented(explored)
  values = {
    'explored': explored,
    'name': explored.dataset.name,
    'subject': subject(explored),
    'facts': _facts(explored),
    'channels': _channels(explored),
    'charts': charts,
    'missing': [(split.name, _named(explored, split)) for split in explored.splits],
    'samples': samples,
    'kinds': _kinds(explored),
    'leaks': _leaks(explored),
    'pairs': pairs,
    'augmented': augmented,
    'sizes': size_facts(explored.headers),
    'unreadable': explored.headers.unreadable[:10] if explored.headers else (),
    'findings': lines(explored)[1:],
    'evidence': EVIDENCE,
    'side': SIDE,
    'uri': lambda picture: html.data_uri(image_grid.png(picture)),
  }
  pictures = _pictures(explored, samples, pairs, augmented)
  files: dict[str, str | bytes] = {plot.file: plot.light for plot in charts.values()}
  files |= pictures
  files |= {
    'explore.html': html.render('exploration.html.j2', **values),
    'explore.json': html.lined_json(as_json(explored)),
  }
  target = Path(directory)
  write_all(target, files, _OPTIONAL)
  return target / 'explore.html'


_OPTIONAL = {'sizes.png', 'augmented.png', *(f'pairs_{key}.png' for key, _ in _GROUPS)}


def subject(explored: Exploration) -> str:
  """Describes the data set in one line."""
  height, width, channels = explored.dataset.image_shape
  kind = 'grey' if channels == 1 else 'colour'
  sizes = ', '.join(f'{split.examples:,} {split.name}' for split in explored.splits)
  made_up = ' (SYNTHETIC: made-up images)' if explored.dataset.synthetic else ''
  return (
    f'{explored.dataset.name}{made_up}: {sizes}; {len(explored.dataset.class_names):,} '
    f'classes, {width} \N{MULTIPLICATION SIGN} {height} {kind} images'
  )


def lines(explored: Exploration) -> list[str]:
  """Returns the findings as lines for the terminal."""
  findings = [subject(explored)]
  findings += [f'note: {note}' for note in explored.notes]
  for split in explored.splits:
    low, high = int(split.counts.min()), int(split.counts.max())
    balance = f'{low:,} to {high:,} images a class'
    if low == high:
      balance = f'{low:,} images of each class'
    elif low:
      balance += f' (imbalance {split.imbalance:.3g})'
    findings.append(f'{split.name}: {balance}')
    if len(split.missing):
      findings.append(f'{split.name} has no image of {_named(explored, split)}')
  mean, std = explored.splits[0].mean, explored.splits[0].std
  findings.append(f'train pixels: mean {_numbers(mean)}, deviation {_numbers(std)}')
  if sizes := size_facts(explored.headers):
    findings.append('files: ' + ', '.join(f'{label} {value}' for label, value in sizes))
  found = explored.duplicates
  counts = ', '.join(f'{len(found.of_kind(kind)):,} {kind}' for kind in KINDS)
  of = f' of {explored.images_read:,} sampled images' if explored.sampled else ''
  findings.append(
    f'duplicates{of}: {counts} pairs, {found.images:,} images in '
    f'{found.clusters:,} clusters'
  )
  findings += _leaks(explored)
  return findings


def _leaks(explored: Exploration) -> list[str]:
  found = explored.duplicates
  findings = []
  for split in explored.splits[1:]:
    count = found.leaked[split.name]
    share = html.percent(count / len(split.sample))
    findings.append(
      f'{count:,} of {len(split.sample):,} {split.name} images ({share}) have a '
      'duplicate in train'
      if count
      else f'no {split.name} image has a duplicate in train'
    )
  conflicts = [pair for pair in found.pairs if pair.conflict]
  findings.append(
    f'{len(conflicts):,} pairs of duplicates have different labels, in '
    f'{found.conflicting:,} clusters'
    if conflicts
    else 'no duplicates have different labels'
  )
  return findings


def _named(explored: Exploration, split: Split, most: int = 12) -> str:
  names = [explored.dataset.class_names[k] for k in split.missing]
  more = f' and {len(names) - most:,} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def _numbers(values: Sequence[float]) -> str:
  return ', '.join(f'{value:.4f}' for value in values)


def size_facts(headers: Headers | None) -> list[tuple[str, str]]:
  """Lists sizes and faults of image files, as (label, value)."""
  if headers is None:
    return []
  facts = []
  if len(headers):
    for label, values in (('width', headers.widths), ('height', headers.heights)):
      low, middle, high = np.quantile(values, [0, 0.5, 1])
      text = f'{low:,.0f} to {high:,.0f}, median {middle:,.0f}'
      facts.append((label, f'{low:,.0f}' if low == high else text))
    low, high = np.quantile(headers.widths / headers.heights, [0, 1])
    text = f'{low:.2f}' if low == high else f'{low:.2f} to {high:.2f}'
    facts.append(('width / height', text))
    grey = int(headers.grey.sum())
    facts.append(('grey', f'{grey:,} of {len(headers):,}'))
  return [*facts, ('unreadable', f'{len(headers.unreadable):,}')]


def _facts(explored: Exploration) -> list[tuple[str, str]]:
  height, width, channels = explored.dataset.image_shape
  facts = [(split.name, f'{split.examples:,}') for split in explored.splits]
  imbalance = explored.splits[0].imbalance
  return [
    *facts,
    ('classes', f'{len(explored.dataset.class_names):,}'),
    ('imbalance of train', html.number(imbalance, '.3g')),
    ('image', f'{width} \N{MULTIPLICATION SIGN} {height}'),
    ('channels', 'grey' if channels == 1 else f'{channels}'),
    ('pipeline', explored.dataset.pipeline),
    ('images read', f'{explored.images_read:,}'),
  ]


def _channels(explored: Exploration) -> list[tuple[str, str, str]]:
  """Lists (split, mean, standard deviation), the normalisation last."""
  rows = [
    (split.name, _numbers(split.mean), _numbers(split.std)) for split in explored.splits
  ]
  mean, std = explored.normalisation
  return [*rows, ('normalisation of the config', _numbers(mean), _numbers(std))]


def _kinds(explored: Exploration) -> list[tuple[str, int, int, int]]:
  """Lists (kind, pairs, pairs across splits, pairs with different labels)."""
  rows = []
  for kind in KINDS:
    pairs = explored.duplicates.of_kind(kind)
    across = sum(pair.across for pair in pairs)
    rows.append((kind, len(pairs), across, sum(pair.conflict for pair in pairs)))
  return rows


def _charts(explored: Exploration) -> dict[str, style.Plot]:
  names = explored.dataset.class_names
  charts = {
    'classes': style.draw(
      'classes.png',
      f'Share of each of {len(names)} classes in every split.',
      lambda theme: plots.classes(explored.splits, names, theme),
    ),
    'intensities': style.draw(
      'intensities.png',
      'Histogram of each channel over 256 levels, for every split.',
      lambda theme: plots.intensities(explored.splits, theme),
    ),
  }
  headers = explored.headers
  if headers is not None and len(headers):
    charts['sizes'] = style.draw(
      'sizes.png',
      'Width, height and aspect ratio of the image files.',
      lambda theme: plots.sizes(headers, theme),
    )
  return charts


def _small(image: np.ndarray) -> np.ndarray:
  """Reduces an image to `_THUMBNAIL` pixels."""
  step = max(image.shape[:2]) / _THUMBNAIL
  if step <= 1:
    return image
  from PIL import Image

  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  size = (round(image.shape[1] / step), round(image.shape[0] / step))
  pixels = np.asarray(picture.resize(size, Image.Resampling.BOX))
  return pixels.reshape(size[1], size[0], -1)


def _strip(images: Sequence[np.ndarray], first: int = 0) -> np.ndarray:
  """Lays images side by side, uint8 [h, w, 3]; a wide gap follows the first `first`."""
  small = np.stack([_small(image) for image in images])
  scale = max(1, 32 // small.shape[1])  # so that gaps are thin beside the images
  if not first:
    return image_grid.grid(small, len(small), scale, 2)
  left = image_grid.grid(small[:first], first, scale, 2)
  right = image_grid.grid(small[first:], len(small) - first, scale, 2)
  apart = np.full((len(left), 6, 3), 136, np.uint8)
  return np.concatenate([left, apart, right], axis=1)


def _samples(explored: Exploration) -> list[tuple[str, int, np.ndarray | None]]:
  """Lists (class, number of training images, strip of some of them)."""
  source = explored.dataset.splits['train']
  rows = []
  counts = explored.splits[0].counts.tolist()
  for name, count, row in zip(explored.dataset.class_names, counts, explored.samples):
    images = [i for i, _ in read_many(source, row[row >= 0].tolist())]
    blank = [np.full(explored.dataset.image_shape, 136, np.uint8)]
    images += blank * (len(row) - len(images))
    rows.append((name, count, _strip(images) if count else None))
  return rows


def _pairs(explored: Exploration) -> list[tuple[str, str, int, list]]:
  """Lists (key, title, number of pairs, cards) of each group with pairs."""
  groups: dict[str, list[DuplicatePair]] = {key: [] for key, _ in _GROUPS}
  for pair in explored.duplicates.pairs:
    key = 'conflict' if pair.conflict else 'leak' if pair.across else pair.kind
    groups[key].append(pair)
  shown = []
  for key, title in _GROUPS:
    if not groups[key]:
      continue
    # Evenly spaced, so that all kinds and splits are shown.
    places = np.linspace(0, len(groups[key]) - 1, min(SHOWN_PAIRS, len(groups[key])))
    some = [groups[key][place] for place in places.round().astype(int)]
    cards = [
      (_strip(_images(explored, pair)), pair, _ends(explored, pair)) for pair in some
    ]
    shown.append((key, title, len(groups[key]), cards))
  return shown


def _images(explored: Exploration, pair: DuplicatePair) -> list[np.ndarray]:
  return [
    explored.dataset.splits[split][index][0]
    for split, index in zip(pair.splits, pair.indices)
  ]


def _ends(explored: Exploration, pair: DuplicatePair) -> list[tuple[str, str]]:
  """Returns (class, position or file name) of both images."""
  return [
    (explored.dataset.class_names[label], _place(explored, split, index))
    for label, split, index in zip(pair.labels, pair.splits, pair.indices)
  ]


def _place(explored: Exploration, split: str, index: int) -> str:
  if split in explored.files:
    return explored.files[split][index]
  return f'{split} #{index}'


def _augmented(explored: Exploration) -> list[np.ndarray]:
  """Returns a strip for each image: the original, then its versions."""
  shown = explored.augmented
  if not shown.versions.shape[1]:
    return []
  return [
    _strip([original, *versions], 1)
    for original, versions in zip(shown.originals, shown.versions)
  ]


def _pictures(
  explored: Exploration, samples: list, pairs: list, augmented: list[np.ndarray]
) -> dict[str, bytes]:
  """Returns the pictures as PNG, by their file names."""
  rows = [(name, strip) for name, _, strip in samples if strip is not None]
  columns = 1 if len(rows) <= 12 else 2 if len(rows) <= 40 else 4
  drawn = {'samples.png': (rows, columns)}
  for key, _, _, cards in pairs:
    named = [
      (' / '.join(dict.fromkeys(name for name, _ in ends)), strip)
      for strip, _, ends in cards
    ]
    drawn[f'pairs_{key}.png'] = (named, 4)
  if augmented:
    names = [f'#{index}' for index in explored.augmented.indices]
    drawn['augmented.png'] = (list(zip(names, augmented)), 1)
  return {
    file: style.png(plots.labelled_rows(rows, columns))
    for file, (rows, columns) in drawn.items()
  }


def as_json(explored: Exploration) -> dict[str, Any]:
  """Returns the content of explore.json."""
  dataset, found = explored.dataset, explored.duplicates
  headers = explored.headers
  mean, std = explored.normalisation
  return {
    'config_name': explored.config_name,
    'dataset': dataset.name,
    'origin': dataset.origin,
    'synthetic': dataset.synthetic,
    'pipeline': dataset.pipeline,
    'image_shape': dataset.image_shape,
    'class_names': list(dataset.class_names),
    'notes': list(explored.notes),
    'examples': explored.examples,
    'images_looked_at': explored.images_read,
    'skipped': dataset.skipped,
    'splits': [
      {
        'split': split.name,
        'examples': split.examples,
        'images_looked_at': len(split.sample),
        'imbalance': split.imbalance,
        'missing': [dataset.class_names[k] for k in split.missing],
        'mean': split.mean,
        'std': split.std,
        'counts': split.counts,
        'histogram': split.histogram,
      }
      for split in explored.splits
    ],
    'normalisation': {'mean': mean, 'std': std},
    'files': dict(size_facts(headers)),
    'augmentation': list(explored.augmented.fields),
    'duplicates': {
      **{kind: len(found.of_kind(kind)) for kind in KINDS},
      'across_splits': sum(pair.across for pair in found.pairs),
      'unlike_labels': sum(pair.conflict for pair in found.pairs),
      'clusters': found.clusters,
      'images': found.images,
      'clusters_of_unlike_labels': found.conflicting,
      'leaked': dict(found.leaked),
    },
    'pairs': [
      {
        'kind': pair.kind,
        'splits': pair.splits,
        'indices': pair.indices,
        'classes': [dataset.class_names[label] for label in pair.labels],
        'evidence': pair.evidence,
        'places': [place for _, place in _ends(explored, pair)],
      }
      for pair in found.pairs[:LISTED_PAIRS]
    ],
  }
