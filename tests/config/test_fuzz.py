"""Any value for any field: it is taken, or refused in one line that names the field."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxvision import config as config_lib
from jaxvision.config import base_config, from_json, override, to_json, validate, walk
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training.run import Run

pytestmark = pytest.mark.long

PATHS = [path for path, _ in walk(config_lib.FIELDS) if not isinstance(_, dict)] + [
  'model.features',
  'model.hidden',
  'model.dropout',
  'model.activation',
  'model.batch_norm',
  'model.dtype',
  'model.num_classes',
  'model.nosuch',
  'loss.gamma',
  'loss.nosuch',
  'optimizer.options',
  'optimizer.options.b1',
  'optimizer.options.momentum',
  'optimizer.options.nosuch',
  'optimizer.groups',
  'optimizer.groups.head',
  *(
    f'optimizer.groups.head.{field}'
    for field in (
      'match',
      'name',
      'learning_rate',
      'start',
      'stop',
      'nesterov',
      'options',
    )
  ),
  'nosuch',
  'data.nosuch',
  'model',
  'data',
]
SPECIAL = [
  *('', ' ', '~', '~nobody/x', 'gs://bucket/run', 'https://x/y', '../..', '/', '\0'),
  *('a\nb', '\u2028', '\ud800', 'é' * 300, 'x' * 5000, '0,9', '1e-8x', 'maybe', '(?P<'),
  *('1e999', '-1', 'nan', '[1', '(' * 300, '{1: 2}', '{[]: 1}', "b'x'", '1j', '...'),
  *('file.py:Net', 'os.path:', ':', 'None', 'True', '0', '9' * 400, '9' * 5000),
]
NUMBERS = st.one_of(
  st.integers(),
  st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, 10**400, 10**4000, 100_000]),
  st.floats(),
  st.sampled_from([1e308, -0.0, 1e-320, 0.5, 0.9999999999, 1.0, float('inf')]),
)
SCALARS = st.one_of(
  st.none(), st.booleans(), NUMBERS, st.text(max_size=40), st.sampled_from(SPECIAL)
)
VALUES = st.one_of(
  SCALARS,
  st.binary(max_size=4),
  st.lists(SCALARS, max_size=4),
  st.lists(NUMBERS, max_size=3).map(tuple),
  st.lists(st.lists(SCALARS, max_size=2), max_size=2),
  st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), SCALARS, max_size=2),
  st.complex_numbers(),
  st.frozensets(st.integers(), max_size=2),
)
INFO = DatasetInfo(
  name='digits',
  class_names=tuple('0123456789'),
  image_shape=(8, 8, 1),
  mean=(0.5,),
  std=(0.5,),
  examples={'train': 1438, 'test': 359},
)


def check_message(error, path):
  message = str(error)
  assert '\n' not in message
  assert message.isprintable() or '\\' not in message
  assert len(message) <= 400, message
  *_, last = path.split('.')
  assert last in message or path in message, message


def with_value(path, value):
  """Returns an unchecked config in which a field, or a group, has a value."""
  config = base_config()
  *parents, key = path.split('.')
  node = config
  for part in parents:
    if part not in node:
      with node.unlocked():
        node[part] = {}
    node = node[part]
  with node.unlocked(), node.ignore_type():
    if path.startswith('optimizer.groups.head.'):
      node.match = 'head'
    if key in node:
      del node[key]  # ml_collections converts to the type of what was there
    node[key] = value
  return config


def tried(make, path):
  """Returns the valid config, or None where it is refused as it should be."""
  try:
    config = make()
  except UserError as error:
    check_message(error, path)
    return None
  assert from_json(to_json(config)) == config
  return config


def built(config, path):
  try:
    Run.build(config, INFO)
  except UserError as error:
    check_message(error, path)


def fuzz_values(path, value):
  tried(lambda: validate(with_value(path, value)), path)


def fuzz_texts(path, text):
  tried(lambda: override(base_config(), [f'{path}={text}']), path)


def fuzz_runs(path, value, model='digits_cnn'):
  config = with_value(path, value)
  if path not in ('model', 'model.name'):
    config.model.name = model
  if path not in ('parallel', 'parallel.data'):
    config.parallel.data = 1
  config = tried(lambda: validate(config), path)
  if config is not None:
    built(config, path)


TEXTS = st.one_of(
  st.sampled_from(SPECIAL),
  st.text(max_size=40),
  SCALARS.map(lambda value: str(value) if not isinstance(value, int) else '12'),
  st.lists(NUMBERS.filter(lambda v: not isinstance(v, int)), max_size=3).map(str),
)
quick = settings(
  derandomize=True,
  deadline=None,
  database=None,
  suppress_health_check=list(HealthCheck),
)
paths = st.sampled_from(PATHS)


@settings(quick, max_examples=150)
@given(paths, VALUES)
def test_any_value_is_valid_or_refused(path, value):
  fuzz_values(path, value)


@settings(quick, max_examples=150)
@given(paths, TEXTS)
def test_any_text_is_valid_or_refused(path, text):
  fuzz_texts(path, text)


@settings(quick, max_examples=50)
@given(paths, VALUES)
def test_a_run_of_any_value_is_built_or_refused(path, value):
  fuzz_runs(path, value)


def try_many(fuzz, path, examples=40):
  """Tries values for one field; returns how many."""
  values = []

  @settings(quick, max_examples=examples)
  @given(TEXTS if fuzz is fuzz_texts else VALUES)
  def one(value):
    values.append(value)
    fuzz(path, value)

  one()
  return len(values)


@pytest.mark.slow
@pytest.mark.parametrize('fuzz', [fuzz_values, fuzz_texts, fuzz_runs])
def test_every_field_takes_many_values(fuzz):
  count = sum(try_many(fuzz, path) for path in PATHS)
  print(f'{fuzz.__name__}: {len(PATHS)} fields, {count} values')
