"""What the tests of several reports share: runs, outputs of models, a reader of pages."""

import json
import re
from html.parser import HTMLParser

import numpy as np

from jaxvision.reports import html
from jaxvision.reports.comparison.groups import FinishedRun
from jaxvision.reports.run import report
from jaxvision.reports.samples import training
from jaxvision.reports.samples.report import SampleClasses, write_generation_report


class Page(HTMLParser):
  """Reads a page: its tags and text, and whether every tag is closed."""

  VOID = frozenset({'meta', 'link', 'img', 'source', 'br', 'input'})

  def __init__(self, path):
    super().__init__()
    self.open, self.tags, self.text = [], [], ''
    self.source = path.read_text(encoding='utf-8')
    self.feed(self.source)
    self.close()
    assert not self.open, f'never closed: {self.open}'
    self.text = ' '.join(self.text.split())

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('script', 'style'):
      self.text += data

  def all(self, name):
    return [attributes for tag, attributes in self.tags if tag == name]

  def ids(self):
    return {attributes['id'] for _, attributes in self.tags if 'id' in attributes}


SUMMARY = {
  'config_name': 'digits_cnn',
  'task': 'classification',
  'params': 57332,
  'steps': 400,
  'epochs': 20.0,
  'seed': 3,
  'train_accuracy': 0.998,
  'test_loss': 0.1,
  'seconds_train': 93.4,
  'seconds_compile': 3.1,
  'images_per_second': 9412.3,
  'peak_memory_bytes': None,
  'backend': 'gpu',
  'device_kind': 'Some GPU',
  'device_count': 8,
  'dtype': 'float32',
  'versions': {'jax': '0.10.2', 'flax': '0.12.1'},
  'git_commit': '0123456789abcdef',
  'command': 'python -m jaxvision.main --config=configs/digits_cnn.py',
}
CONFIG = {'seed': 3, 'model': {'name': 'digits_cnn'}, 'data': {'mean': [0.3]}}
HISTORY = [
  {
    'step': step,
    'split': 'train',
    'loss': 2.3 / step,
    'accuracy': 1 - 1 / step,
    'learning_rate': 0.1,
    'epoch': step / 20,
  }
  for step in range(1, 400, 25)
] + [{'step': 400, 'split': 'test', 'loss': 0.1, 'accuracy': 0.97}]


def classifier_outputs(num_classes, examples=60, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, num_classes, examples).astype(np.int32)
  logits = rng.normal(size=(examples, num_classes))
  logits[np.arange(examples), labels] += 2
  weights = np.exp(logits)
  return labels, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def write_run_report(
  directory, num_classes=3, shape=(8, 8, 1), outputs=None, **changes
):
  labels, probabilities = outputs or classifier_outputs(num_classes)
  arguments = {
    'summary': SUMMARY,
    'config': CONFIG,
    'history': [],  # curves are drawn where a test is about them
    'labels': labels,
    'probabilities': probabilities,
    'class_names': [f'class {i}' for i in range(num_classes)],
    'image_at': lambda i: np.full(shape, i % 256, np.uint8),
    'split': 'test',
  }
  return report.write_report(directory, **{**arguments, **changes})


GAN_SUMMARY = {
  'config_name': 'mnist_dcgan',
  'task': 'gan',
  'dataset': 'mnist',
  'generator_params': 370624,
  'discriminator_params': 167808,
  'steps': 50000,
  'epochs': 64.0,
  'seed': 3,
  'd_real': 0.7321,
  'd_fake': 0.2123,
  'seconds_train': 4000.0,
  'images_per_second': 903.0,
  'device_kind': 'Some GPU',
  'device_count': 8,
  'backend': 'gpu',
  'dtype': 'float32',
  'versions': {'jax': '0.10.2'},
  'git_commit': '0123456789abcdef',
  'command': 'python -m jaxvision.main --config=configs/mnist_dcgan.py',
}
GAN_CONFIG = {'seed': 3, 'gan': {'loss': 'bce'}}
SCORES = {
  'name': 'FD-resnet20',
  'value': 41.234,
  'floor': 3.125,
  'samples': 50000,
  'reference': 'train (50,000 images)',
  'weights': 'run resnet20, weights 6726825d',
  'resizer': 'clean',
  'kid': 0.0341,
  'kid_std': 0.0021,
  'inception_score': None,
  'precision': np.float32(0.5),
  'recall': 0.25,
  'density': 0.875,
  'coverage': 0.75,
  'protocol': '50,000 samples against train, run resnet20',
}


def gan_history(points=500, evaluations=20):
  rng = np.random.default_rng(0)
  noise = 0.1 * rng.normal(size=(points, 4))
  log = [
    {
      'step': 100 * (i + 1),
      'split': 'train',
      'generator_loss': 2.0 + a,
      'discriminator_loss': 0.6 + b,
      'd_real': float(np.clip(0.7 + c, 0, 1)),
      'd_fake': float(np.clip(0.3 + d, 0, 1)),
      'generator_grad_norm': float(np.exp(a)),
      'discriminator_grad_norm': float(np.exp(b)),
      'epoch': i / 8,
    }
    for i, (a, b, c, d) in enumerate(noise)
  ]
  return log + [
    {
      'step': 2500 * (i + 1),
      'split': 'samples',
      'fd': 300 / (i + 1),
      'kid': 0.1,
      'samples': 1000,
      'diversity': 0.9,
      'confidence': 0.6,
    }
    for i in range(evaluations)
  ]


def random_images(*shape):
  return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def sample_classes(num_classes, names=None):
  counts = np.arange(num_classes)
  confidences = np.linspace(0.2, 1, 50)
  return SampleClasses('mnist_cnn, weights abc', counts, 0.6, confidences, names)


def write_gan_report(directory, **changes):
  """Writes the report of a run that nobody measured, or as `changes` have it."""
  arguments = {
    'summary': GAN_SUMMARY,
    'config': GAN_CONFIG,
    'history': [],
    'samples': random_images(6, 8, 8, 1),
    'frames': [],
    'interpolation': None,
    'neighbours': [],
    'sample_classes': None,
    'scores': None,
    'class_names': [str(i) for i in range(10)],
    'notes': [],
  }
  arguments |= changes
  said = training.of_gan(arguments['summary'], 'bce', arguments['history'])
  arguments.setdefault('training', said)
  return write_generation_report(directory, **arguments)


def finished_run(name='a', seed=0, accuracy=0.9, fields=None, **summary):
  fields = {'seed': seed, 'name': name, 'batch_size': 64} | (fields or {})
  summary = {
    'config_name': name,
    'task': 'classification',
    'dataset': 'cifar10',
    'test_accuracy': accuracy,
    'test_loss': 1 - accuracy,
    'params': 1000,
    'epochs': 10.0,
    'seed': seed,
    'seconds_train': 60.0,
    'device_kind': 'one core',
  } | summary
  history = [
    {'step': step, 'split': 'test', 'accuracy': accuracy * step / 20}
    for step in (10, 20)
  ]
  return FinishedRun(f'{name}-seed{seed}', fields, summary, history, flops=5000)


HOSTILE = [
  '<script>window.hit = 1</script>',
  '<img src=x onerror="window.hit = 1"> | $x$',
  '"日本語" & {{ 7 * 7 }} `tick` ](http://example.com)',
]


def checked_report(path, pictures):
  """Returns the page and the record of a report, whose files and names are checked."""
  texts = ['report.html', 'report.json', 'report.md']
  found = sorted(file.name for file in path.parent.iterdir())
  assert found == sorted([*pictures, *texts])
  page = Page(path)
  assert all(attributes.get('alt') for attributes in page.all('img'))
  sources = [attributes['src'] for attributes in page.all('img')]
  assert all(source.startswith('data:image/') for source in sources)
  links = {attributes['href'].removeprefix('#') for attributes in page.all('a')}
  assert links <= page.ids()
  assert len(page.all('script')) == 1  # its own
  assert 'nan' not in page.text.replace(html.MISSING, ' ').split()
  markdown = (path.parent / 'report.md').read_text(encoding='utf-8')
  assert '<script>' not in markdown
  assert '<img' not in markdown
  for file in re.findall(r'\]\((\w+\.png)\)', markdown):
    assert (path.parent / file).is_file()
  source = (path.parent / 'report.json').read_text(encoding='utf-8')
  assert 'NaN' not in source
  return page, json.loads(source)


def assert_readable(browser, path, texts):
  """Opens a report at the widths of a desk and a phone, with scripts and without."""
  for width, dark, scripts in (
    (1200, False, True),
    (390, True, True),
    (390, False, False),
  ):
    page = browser.open(path, width=width, dark=dark, scripts=scripts)
    assert page.overflow() <= 0
    for text in texts:
      assert any(text in shown for shown in page.texts('main'))
    assert not page.evaluate('window.hit')
