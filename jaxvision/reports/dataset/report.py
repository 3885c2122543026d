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
from jaxvision.reports.dataset.exploration import Exploration, Split, Twins

SHOWN_PAIRS = 24  # of each sort
LISTED_PAIRS = 10_000  # in explore.json
_THUMBNAIL = 96  # pixels a side, at most, of what the page holds

# Sorts of pairs that are shown apart, the gravest first: key, title.
_SORTS = (
  ('conflict', 'Of two classes'),
  ('leak', 'Across splits, of one class'),
  ('identical', 'Identical, in one split'),
  ('near', 'Nearly so, in one split'),
  ('mirrored', 'Mirrored, in one split'),
)


def write_exploration(directory: str | Path, explored: Exploration) -> Path:
  """Writes an exploration into a directory.

  explore.html (one file that needs nothing else), .json, and the pictures as PNG.
  Every file is replaced as a whole; a picture that there is nothing for is left out, and
  one of an earlier exploration removed.

  Args:
    directory: is made where it is not there.
    explored: what to write.

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


_OPTIONAL = {'sizes.png', 'augmented.png', *(f'pairs_{key}.png' for key, _ in _SORTS)}


def subject(explored: Exploration) -> str:
  """Says what was explored in a line."""
  height, width, channels = explored.dataset.image_shape
  kind = 'grey' if channels == 1 else 'colour'
  sizes = ', '.join(f'{split.examples:,} {split.name}' for split in explored.splits)
  made_up = ' (SYNTHETIC: made-up images)' if explored.dataset.synthetic else ''
  return (
    f'{explored.dataset.name}{made_up}: {sizes}; {len(explored.dataset.class_names):,} '
    f'classes, {width} \N{MULTIPLICATION SIGN} {height} {kind} images'
  )


def lines(explored: Exploration) -> list[str]:
  """Returns the findings for the terminal, a line each."""
  told = [subject(explored)]
  told += [f'note: {note}' for note in explored.notes]
  for split in explored.splits:
    low, high = int(split.counts.min()), int(split.counts.max())
    balance = f'{low:,} to {high:,} images a class'
    if low == high:
      balance = f'{low:,} images of each class'
    elif low:
      balance += f' (imbalance {split.imbalance:.3g})'
    told.append(f'{split.name}: {balance}')
    if len(split.missing):
      told.append(f'{split.name} has no image of {_named(explored, split)}')
  mean, std = explored.splits[0].mean, explored.splits[0].std
  told.append(f'train pixels: mean {_numbers(mean)}, deviation {_numbers(std)}')
  if sizes := size_facts(explored.headers):
    told.append('files: ' + ', '.join(f'{label} {value}' for label, value in sizes))
  repeats = explored.repeats
  counts = ', '.join(f'{len(repeats.of(kind)):,} {kind}' for kind in KINDS)
  of = f' of {explored.looked:,} sampled images' if explored.sampled else ''
  told.append(
    f'duplicates{of}: {counts} pairs, {repeats.images:,} images in '
    f'{repeats.clusters:,} clusters'
  )
  told += _leaks(explored)
  return told


def _leaks(explored: Exploration) -> list[str]:
  repeats = explored.repeats
  told = []
  for split in explored.splits[1:]:
    count = repeats.leaked[split.name]
    share = html.percent(count / len(split.looked))
    told.append(
      f'{count:,} of {len(split.looked):,} {split.name} images ({share}) have a '
      'duplicate in train'
      if count
      else f'no {split.name} image was found in train'
    )
  conflicts = [pair for pair in repeats.pairs if pair.conflict]
  told.append(
    f'{len(conflicts):,} pairs of duplicates have unlike labels, in '
    f'{repeats.conflicting:,} clusters'
    if conflicts
    else 'no duplicates have unlike labels'
  )
  return told


def _named(explored: Exploration, split: Split, most: int = 12) -> str:
  names = [explored.dataset.class_names[k] for k in split.missing]
  more = f' and {len(names) - most:,} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more


def _numbers(values: Sequence[float]) -> str:
  return ', '.join(f'{value:.4f}' for value in values)


def size_facts(headers: Headers | None) -> list[tuple[str, str]]:
  """Lists what the headers of files say, as (label, value)."""
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
    ('looked at', f'{explored.looked:,}'),
  ]


def _channels(explored: Exploration) -> list[tuple[str, str, str]]:
  """Lists (of what, mean, deviation), the normalisation last."""
  rows = [
    (split.name, _numbers(split.mean), _numbers(split.std)) for split in explored.splits
  ]
  mean, std = explored.normalisation
  return [*rows, ('the run normalises by', _numbers(mean), _numbers(std))]


def _kinds(explored: Exploration) -> list[tuple[str, int, int, int]]:
  """Lists (kind, pairs, across splits, of two classes)."""
  rows = []
  for kind in KINDS:
    pairs = explored.repeats.of(kind)
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
      'Widths, heights and aspect ratios of the image files.',
      lambda theme: plots.sizes(headers, theme),
    )
  return charts


def _small(image: np.ndarray) -> np.ndarray:
  """Reduces an image to what a page shows of it."""
  step = max(image.shape[:2]) / _THUMBNAIL
  if step <= 1:
    return image
  from PIL import Image

  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  size = (round(image.shape[1] / step), round(image.shape[0] / step))
  pixels = np.asarray(picture.resize(size, Image.Resampling.BOX))
  return pixels.reshape(size[1], size[0], -1)


def _strip(images: Sequence[np.ndarray], first: int = 0) -> np.ndarray:
  """Lays images side by side: uint8 [h, w, 3]; `first` of them stand apart."""
  small = np.stack([_small(image) for image in images])
  scale = max(1, 32 // small.shape[1])  # so that gaps are thin beside the images
  if not first:
    return image_grid.grid(small, len(small), scale, 2)
  left = image_grid.grid(small[:first], first, scale, 2)
  right = image_grid.grid(small[first:], len(small) - first, scale, 2)
  apart = np.full((len(left), 6, 3), 136, np.uint8)
  return np.concatenate([left, apart, right], axis=1)


def _samples(explored: Exploration) -> list[tuple[str, int, np.ndarray | None]]:
  """Lists (class, training images, some of them side by side)."""
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
  """Lists (key, title, how many, [(both images, what they are)]) of each sort."""
  sorts: dict[str, list[Twins]] = {key: [] for key, _ in _SORTS}
  for pair in explored.repeats.pairs:
    key = 'conflict' if pair.conflict else 'leak' if pair.across else pair.kind
    sorts[key].append(pair)
  shown = []
  for key, title in _SORTS:
    if not sorts[key]:
      continue
    # Evenly through them, so that all kinds and places are seen.
    places = np.linspace(0, len(sorts[key]) - 1, min(SHOWN_PAIRS, len(sorts[key])))
    some = [sorts[key][place] for place in places.round().astype(int)]
    cards = [
      (_strip(_images(explored, pair)), pair, _ends(explored, pair)) for pair in some
    ]
    shown.append((key, title, len(sorts[key]), cards))
  return shown


def _images(explored: Exploration, pair: Twins) -> list[np.ndarray]:
  return [
    explored.dataset.splits[split][index][0]
    for split, index in zip(pair.splits, pair.indices)
  ]


def _ends(explored: Exploration, pair: Twins) -> list[tuple[str, str]]:
  """Returns (class, where it is) of both."""
  return [
    (explored.dataset.class_names[label], _place(explored, split, index))
    for label, split, index in zip(pair.labels, pair.splits, pair.indices)
  ]


def _place(explored: Exploration, split: str, index: int) -> str:
  if split in explored.files:
    return explored.files[split][index]
  return f'{split} #{index}'


def _augmented(explored: Exploration) -> list[np.ndarray]:
  """Returns a strip for each image: as it is, then its versions."""
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
  """Returns what explore.json holds."""
  dataset, repeats = explored.dataset, explored.repeats
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
    'images_looked_at': explored.looked,
    'skipped': dataset.skipped,
    'splits': [
      {
        'split': split.name,
        'examples': split.examples,
        'images_looked_at': len(split.looked),
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
    'augmentation': list(explored.augmented.what),
    'duplicates': {
      **{kind: len(repeats.of(kind)) for kind in KINDS},
      'across_splits': sum(pair.across for pair in repeats.pairs),
      'unlike_labels': sum(pair.conflict for pair in repeats.pairs),
      'clusters': repeats.clusters,
      'images': repeats.images,
      'clusters_of_unlike_labels': repeats.conflicting,
      'leaked': dict(repeats.leaked),
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
      for pair in repeats.pairs[:LISTED_PAIRS]
    ],
  }
