"""The report of generated images: complete, whole in itself, no number without its protocol."""

import io
import itertools
import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from report_samples import (
  GAN_SUMMARY,
  SCORES,
  Page,
  gan_history,
  random_images,
  sample_classes,
  write_gan_report,
)

from jaxvision.reports import html, image_grid, style
from jaxvision.reports.samples import plots, training
from jaxvision.reports.samples.report import (
  ANIMATION,
  Neighbour,
)


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  """The report of a long run of which there is everything, with 100 classes."""
  images = random_images(9, 8, 8, 3)
  return write_gan_report(
    tmp_path_factory.mktemp('run'),
    history=gan_history(),
    samples=images,
    frames=[(100 * i, random_images(20, 20, 3) // i) for i in range(1, 4)],
    interpolation=random_images(2, 5, 8, 8, 3),
    neighbours=[Neighbour(i, (i, 255 - i), (12.34, 56.78)) for i in images[:3]],
    sample_classes=sample_classes(100, [f'class {i}' for i in range(100)]),
    scores=SCORES,
    notes=['Synthetic: nothing here is real.'],
  )


PICTURES = {
  'class_histogram.png',
  'confidence.png',
  'distances.png',
  'diversity.png',
  'gradient_norms.png',
  'interpolation.png',
  'losses.png',
  'neighbours.png',
  'probabilities.png',
  'samples.png',
}


def test_report_is_complete(full):
  texts = {'report.html', 'report.json', 'report.md'}
  assert set(os.listdir(full.parent)) == PICTURES | texts | {ANIMATION}
  for file in PICTURES:
    with Image.open(full.parent / file) as picture:
      assert len(np.unique(np.asarray(picture.convert('L')))) > 10  # not blank
  with Image.open(full.parent / ANIMATION) as animation:
    assert animation.n_frames == 3
  with Image.open(full.parent / 'samples.png') as picture:
    picture = np.asarray(picture)
  scale = image_grid.fitting_scale(3 * 8)
  expected = image_grid.grid(random_images(9, 8, 8, 3), 3, scale)
  np.testing.assert_array_equal(picture, expected)

  read = Page(full)
  assert read.ids() >= {
    *('measures', 'training', 'curves', 'evaluations', 'classes'),
    *('neighbours', 'interpolation', 'config'),
  }
  for said in (
    *('41.23 FD-resnet20, lower is better', 'floor 3.12', 'This is not FID'),
    *('370,624', '167,808', '50,000', '64', '1 h 6 min', '903', '0.732', '0.212'),
    *('Some GPU (gpu)', 'float32', '0123456789', 'trained on mnist'),
    *('0.0341 ± 0.0021', '0.500', '0.250', '0.875', '0.750', '12.3', '56.8'),
    *(
      'Synthetic: nothing here is real.',
      '99 of 100 classes',
      'Mean confidence: 60.0%',
    ),
  ):
    assert said in read.text, said
  assert 'Inception Score' not in read.text  # None is not measured
  assert len(read.all('img')) == 2 + 1 + 3 * 3  # grids, animation, nearest
  assert len(read.all('svg')) == 7 + 5  # charts, and those over steps for phones


def test_no_value_without_its_protocol(full):
  """The four facts stand between the number and whatever comes next."""
  read = Page(full)
  markdown = full.with_suffix('.md').read_text(encoding='utf-8')
  for text, following in ((read.text, 'generator parameters'), (markdown, '![')):
    near = text[text.index('41.23') :]
    near = near[: near.index(following)]
    for fact in ('50,000', 'train (50,000 images)', 'weights 6726825d', 'clean'):
      assert fact in near, fact
  (title,) = re.findall(r'<title>(.*)</title>', read.source)
  assert '41' not in title


def test_html_needs_nothing_else(full):
  read = Page(full)
  assert not re.search(r'https?://|@import|url\((?!#)', read.source)
  resources = [
    value
    for _, attributes in read.tags
    for name, value in attributes.items()
    if name in ('src', 'srcset', 'data', 'poster', 'action')
  ]
  assert len(resources) == len(read.all('img')) + len(read.all('source'))
  assert all(re.match(r'data:image/(png|webp);base64,', value) for value in resources)
  assert sum(value.startswith('data:image/webp') for value in resources) == 1
  assert {attributes['href'][1:] for attributes in read.all('a')} <= read.ids()
  assert all(attributes.get('alt') for attributes in read.all('img'))
  assert any(
    "default-src 'none'" in meta.get('content', '') for meta in read.all('meta')
  )


def test_json_and_markdown_hold_the_same(full):
  record = json.loads(full.with_suffix('.json').read_text(encoding='utf-8'))
  assert record['scores'] == {**SCORES, 'precision': 0.5}
  assert record['generator_params'] == 370624
  assert record['d_real'] == 0.7321
  assert (
    record['generator_loss'] == gan_history()[499]['generator_loss']
  )  # not in summary
  assert record['judged']['classes_drawn'] == 99
  assert [row['samples'] for row in record['per_class']] == list(range(100))
  assert record['nearest_distances'] == [[12.34, 56.78]] * 3
  assert len(record['evaluations']) == 20
  assert record['notes'] == ['Synthetic: nothing here is real.']

  source = full.with_suffix('.md').read_text(encoding='utf-8')
  linked = re.findall(r'\]\(([^)]+)\)', source)
  assert set(linked) == PICTURES | {ANIMATION}
  tables = re.findall(r'(?:^\|.*\n)+', source, re.MULTILINE)
  assert len(tables) == 4  # protocol, facts, measures, neighbours
  for table in tables:
    widths = {len(re.split(r'(?<!\\)\|', row)) for row in table.splitlines()}
    assert len(widths) == 1
  assert '| 3 | 12.3 | 56.8 |' in source


def test_a_long_run_weighs_little(full):
  """Charts are what a report of 500 log points is heavy with, where nothing reduces."""
  charts = ['losses', 'probabilities', 'gradient_norms', 'class_histogram']
  sizes = [(full.parent / f'{name}.png').stat().st_size for name in charts]
  assert sum(sizes) < 350_000
  assert full.stat().st_size < 1_500_000


def test_what_there_is_nothing_of_is_left_out(full, tmp_path):
  (tmp_path / 'report').mkdir()
  for file in PICTURES | {ANIMATION}:  # of an earlier report
    (tmp_path / 'report' / file).write_bytes((full.parent / file).read_bytes())
  one = [(100, random_images(20, 20, 3))]  # moves nothing
  path = write_gan_report(tmp_path, summary={}, config={}, frames=one)
  texts = {'report.html', 'report.json', 'report.md'}
  assert set(os.listdir(path.parent)) == {'samples.png', *texts}
  read = Page(path)
  assert {name for name in read.ids() if not name.endswith('-title')} == {'config'}
  assert 'No distance was measured' in read.text
  assert read.source.count(f'<dd>{html.MISSING}</dd>') == 17
  assert 'None' not in read.text
  assert 'class="command"' not in read.source
  record = json.loads(path.with_suffix('.json').read_text(encoding='utf-8'))
  assert record['scores'] is record['judged'] is record['d_real'] is None
  assert record['per_class'] == record['evaluations'] == []
  markdown = path.with_suffix('.md').read_text(encoding='utf-8')
  assert re.findall(r'\]\(([^)]+)\)', markdown) == ['samples.png']
  for samples in (np.zeros((0, 8, 8, 1), np.uint8), np.zeros((8, 8, 1), np.uint8)):
    with pytest.raises(ValueError):
      write_gan_report(tmp_path, samples=samples)


def test_names_cannot_break_out(tmp_path):
  hostile = '<script>alert(1)</script> | *a* {{ 7 * 7 }} $5'
  path = write_gan_report(
    tmp_path,
    summary={**GAN_SUMMARY, 'config_name': hostile, 'dataset': hostile},
    notes=[hostile],
    scores={'name': 'FID', 'value': 1.0, 'floor': None, 'weights': hostile},
    sample_classes=sample_classes(2, [hostile, hostile]),
  )
  read = Page(path)
  assert len(read.all('script')) == 1
  assert read.text.count(hostile) == 5  # title, heading, subject, note, weights
  assert 'floor' not in read.text
  assert 'This is not FID' not in read.text
  assert '<script>' not in path.with_suffix('.md').read_text(encoding='utf-8')
  assert 'resizingnone' in read.text


def _labels(axes):
  return [text.get_text() for text in axes.get_legend().get_texts()]


def test_smoothing_passes_over_peaks_and_keeps_a_trend():
  trend = np.linspace(0.0, 1.0, 500)
  values = trend.copy()
  values[[3, 200, 498]] = 90.0
  smooth = plots.smoothed(values)
  assert smooth.shape == (500,)
  np.testing.assert_allclose(smooth, trend, atol=0.03)


def test_curves_and_their_lines():
  history = gan_history(points=100)
  (axes,) = plots.probabilities(history).axes
  assert _labels(axes)[0].startswith('D(x), real (last 0.')
  assert axes.get_ylim() == (0, 1)
  (line,) = [line for line in axes.lines if len(line.get_xdata()) == 2]
  assert list(line.get_ydata()) == [0.5, 0.5]
  raw, smooth = axes.lines[:2]
  assert raw.get_alpha() < 0.5
  assert np.std(smooth.get_ydata()) < np.std(raw.get_ydata())
  (axes,) = plots.probabilities(history, line=None).axes
  assert all(len(line.get_xdata()) == 100 for line in axes.lines)
  (axes,) = plots.gradient_norms(history).axes
  assert axes.get_yscale() == 'log'


@pytest.mark.parametrize('peak', [2.0, 500.0])
def test_a_peak_in_a_loss_is_cut_off_and_said(peak):
  history = gan_history(points=200)
  history[50]['generator_loss'] = peak
  (axes,) = plots.losses(history).axes
  said = [text.get_text() for text in axes.texts]
  assert said == (['cut off: peaks to 500'] if peak == 500 else [])
  assert axes.get_ylim()[1] < 10


def test_the_loss_of_the_classes_is_drawn_where_there_is_one():
  history = gan_history(points=20)
  (without,) = plots.losses(history).axes
  for point in history:
    point['class_loss'] = 3.0
  (axes,) = plots.losses(history).axes
  labels = [text.get_text() for text in axes.get_legend().get_texts()]
  assert len(axes.lines) == len(without.lines) + 1
  assert any('class of real images' in label for label in labels)


def test_the_report_of_a_flow_has_its_loss_and_how_it_draws(tmp_path):
  history = [
    {'step': step, 'split': split, 'loss': 1 / step + (split == 'samples')}
    for step in range(1, 9)
    for split in (['train'] if step % 4 else ['train', 'samples'])
  ]
  settings = {'sampler': 'heun', 'steps': 1000, 'guidance': 1.0}
  summary = {'config_name': 'digits_flow', 'params': 12345, 'test_loss': 0.25}
  said = training.of_flow(summary, settings, history)
  path = write_gan_report(
    tmp_path, summary=summary, config={}, history=history, training=said
  )
  read = Page(path)
  for text in ('12,345', 'heun, 1,000 steps', 'guidancenone', 'loss0.125', '0.25'):
    assert text in read.text
  assert 'discriminator' not in read.source
  assert 'generator' not in read.text
  record = json.loads(path.with_suffix('.json').read_text(encoding='utf-8'))
  assert record['flow'] == settings
  assert (record['params'], record['loss'], record['test_loss']) == (12345, 0.125, 0.25)
  assert (path.parent / 'losses.png').is_file()
  (axes,) = plots.loss(history).axes
  assert _labels(axes) == ['training (last 0.125)', 'held out (last 1.12)']
  guided = training.of_flow(summary, settings | {'guidance': 2.5}, [])
  assert ('guidance', '2.5') in guided.facts
  assert guided.charts == ()


def test_distances_with_floor_and_end():
  history = gan_history()
  figure = plots.distances(
    history, name='FD-x', floor=3.0, final=(50000, 41.0, '50,000 samples')
  )
  upper, lower = figure.axes
  assert upper.get_ylabel() == 'FD-x'
  assert lower.get_ylabel() == 'KID'
  assert _labels(upper) == [
    'while training, 1,000 samples (lowest 15)',
    'at the end, 50,000 samples: 41',
    'floor, real against real: 3',
  ]
  assert upper.get_ylim()[0] == 0
  steps, values = plots.evaluated(history, 'fd')
  assert steps.tolist() == list(range(2500, 50001, 2500))
  assert values[0] == 300
  only = [
    {'step': 5, 'split': 'test', 'fd': 7.0},
    {'step': 9, 'split': 'train', 'fd': 1},
  ]
  (axes,) = plots.distances(only).axes
  assert axes.lines[0].get_ydata().tolist() == [7.0]


@pytest.mark.parametrize(('number', 'columns'), [(10, 1), (100, 2), (1000, 2)])
def test_class_histogram_is_readable(number, columns):
  counts = np.arange(number)
  names = [f'class {i}' for i in range(number)]
  figure = plots.class_histogram(counts, names)
  assert len(figure.axes) == columns
  first = figure.axes[0]
  ticks = [text.get_text() for text in first.get_yticklabels()]
  assert ticks[0] == ('class 0' if number == 10 else f'class {number - 1}')
  assert sum(len(axes.patches) for axes in figure.axes) == min(number, 100)
  assert first.lines[0].get_xdata()[0] == pytest.approx(1 / number)
  said = [text.get_text() for axes in figure.axes for text in axes.texts]
  assert said.count('none') == 1
  drawn = Image.open(io.BytesIO(style.png(figure)))
  # Names do not overlap: each row has its font's height, 192 pixels to the inch.
  boxes = [text.get_window_extent() for text in first.get_yticklabels()]
  assert all(low.y1 <= high.y0 + 1 for high, low in itertools.pairwise(boxes))
  assert max(drawn.size) < 2200


def test_reduced_charts_look_the_same():
  figure = plots.confidence_histogram(np.linspace(0, 1, 30), style.DARK)
  whole = style.png(figure)
  fewer = style.reduced(whole)
  assert len(fewer) < len(whole) / 2
  one, two = (
    np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).astype(int)
    for data in (whole, fewer)
  )
  assert two[0, 0].tolist() == [0x16, 0x1A, 0x20]  # the page's own colour
  assert np.abs(one - two).max() < 32
