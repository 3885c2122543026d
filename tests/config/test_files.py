"""Config files: what they import, what their mistakes are told as."""

import sys

import pytest
from refusals import refused

from jaxvision import config as config_lib
from jaxvision.config import base_config, from_json, load, override, to_json, validate


@pytest.fixture
def write(tmp_path):
  """Writes a config file of some lines and returns its path."""

  def file(*lines, folder='.', head='from jaxvision.config import base_config'):
    path = tmp_path / folder / 'mine.py'
    path.parent.mkdir(exist_ok=True)
    body = ''.join(f'  {line}\n' for line in lines)
    path.write_text(
      f'{head}\ndef get_config():\n  config = base_config()\n{body}  return config\n'
    )
    return path

  return file


@pytest.mark.parametrize(
  ('line', 'wanted'),
  [
    ('config.learning_rate = 1', '"optimizer.learning_rate"'),
    ('config.data.lr = 1', '"data.lr", did you mean "optimizer.learning_rate"'),
    ('config.data.nmae = "x"', '"data.nmae", did you mean "data.name"'),
    ('config.optimizer.lerning_rate = 1', 'did you mean "optimizer.learning_rate"'),
    ('config.epoch = 3', 'did you mean "epochs"'),
    ('print(config.data.lr)', 'did you mean "optimizer.learning_rate"'),
    ('config.model = "resnet18"', 'TypeError'),
    ('config.model.x = {1: 2}', 'must be a string'),
    ('config.model.x = {1: 2, "a": 3}', 'no string'),
    ('config.optimizer.groups = {"head": {0: 1}}', 'must be a string'),
    ('config.optimizer.groups.head = {}', 'optimizer.groups.head.match'),
    ('config.model.x = {3}', 'model.x takes a number'),
    ('config.model.x = [{"a": 1}]', 'model.x takes a number'),
    ('config.seed = 10**400', 'seed must be at most'),
    ('config.model.width = 10**400', 'model.width must be at most'),
  ],
)
def test_a_mistake_in_a_file_is_one_line(write, line, wanted):
  assert wanted in refused(load, write(line))


def test_a_config_imports_the_files_beside_it_and_only_those(write, tmp_path):
  paths = []
  for folder, seed in (('one', 1), ('two', 2)):
    head = 'from shared_of_a_test import base_config'
    paths.append(write(folder=folder, head=head))
    paths[-1].with_name('shared_of_a_test.py').write_text(
      'from jaxvision.config import base_config as plain\n'
      f'def base_config():\n  config = plain()\n  config.seed = {seed}\n'
      '  return config\n'
    )
  before = list(sys.path)
  assert [load(path).seed for path in paths] == [1, 2]
  assert sys.path == before
  assert 'shared_of_a_test' not in sys.modules
  (tmp_path / 'one' / 'shared_of_a_test.py').write_text('x = 1\n1 / 0\n')
  assert 'shared_of_a_test.py:2: ZeroDivisionError' in refused(load, paths[0])
  assert sys.path == before


def test_config_json_of_a_run_is_a_config_file(write, tmp_path):
  config = load(write('config.model.features = [4, 8]'), ['seed=3'])
  (tmp_path / 'config.json').write_text(to_json(config))
  assert load(tmp_path / 'config.json', ['epochs=2']) == override(config, ['epochs=2'])
  assert f'--workdir={tmp_path}' in refused(load, tmp_path)
  for text in ('[]', '{', 'null', '{"seed": NaN}', '{"1": 2}'):
    (tmp_path / 'config.json').write_text(text)
    refused(load, tmp_path / 'config.json')


def test_lists_of_a_file_are_tuples(write):
  config = load(write('config.model.features = [8, 16]'))
  assert config.model.features == (8, 16)
  assert config_lib.differences(from_json(to_json(config)), config) == []


def test_numpy_scalars_are_numbers(write):
  np = pytest.importorskip('numpy')
  config = base_config()
  config.model.dropout = np.float32(0.5)
  config.model.features = (np.int64(4),)
  config.batch_size = int(np.int64(8))
  valid = validate(config)
  assert type(valid.model.dropout) is float
  assert from_json(to_json(valid)) == valid
