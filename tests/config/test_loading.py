"""Config files and the fields in them: what is found, refused, and kept as it was."""

import sys

import pytest

from jaxvision import config as config_lib
from jaxvision.config import base_config, from_json, load, override, to_json, validate
from jaxvision.errors import UserError


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


def refused(make, *arguments):
  with pytest.raises(UserError) as error:
    make(*arguments)
  message = str(error.value)
  assert '\n' not in message
  assert len(message) < 500
  return message


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


@pytest.mark.parametrize('path', ['impatience', 'data.impatience', 'zzz', 'data.zzz'])
def test_no_hint_where_nothing_is_near(path):
  assert 'did you mean' not in refused(override, base_config(), [f'{path}=1'])


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


@pytest.mark.parametrize(
  'assignment',
  [
    'model.features=[8, 16]',
    'model.anything=[1, [2, "a"]]',
    'loss.weights=[0.1, 0.9]',
    'optimizer.options.b1=0.5',
    'optimizer.groups.head.match=head',
    'model.kernel=None',
  ],
)
def test_a_config_equals_itself_after_json(assignment):
  config = override(base_config(), [assignment])
  again = from_json(to_json(config))
  assert again == config
  assert config_lib.differences(again, config) == []
  assert config_lib.differences(from_json(to_json(again)), again) == []


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


def test_paths_are_expanded_and_urls_refused(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  fields = [p for p, f in config_lib.walk(config_lib.FIELDS) if f.path]
  assert {'data.dir', 'data.root', 'data.cache_dir', 'init.pretrained'} <= set(fields)
  for path in fields:
    config = override(base_config(), [f'{path}=~/x'])
    assert dict(config_lib.walk(config))[path] == str(tmp_path / 'x')
    message = refused(override, base_config(), [f'{path}=gs://bucket/x'])
    assert path in message
    assert 'URL' in message


def test_what_a_run_is_called_and_when_it_logs_may_change():
  changed = override(
    base_config(),
    [
      'name=other',
      'log_every_steps=7',
      'eval_every_steps=7',
      'checkpoint.every_steps=7',
      'data.workers=3',
    ],
  )
  assert config_lib.differences(base_config(), changed) == []


@pytest.mark.parametrize(
  'assignment',
  [
    'data.workers=1000000',
    'data.image_size=100000',
    'epochs=1e308',
    'epochs=inf',
    'gan.r1=inf',
    'gan.r1=nan',
    'grad_clip=1e39',
    'ema_decay=0.99999999999',
    'steps=' + '9' * 400,
    'steps=' + '9' * 5000,
    'data.mean=(125.3,)',
    'data.std=(0.0,)',
    'optimizer.options=3',
    'model.dtype=float16',
    'model.num_classes=3',
    'name=../other',
    'name=a/b',
    'freeze=("",)',
    'optimizer.groups.*.match=head',
  ],
)
def test_impossible_values_name_their_field(assignment):
  message = refused(override, base_config(), [assignment])
  assert assignment.partition('=')[0].rpartition('.')[2] in message


def test_an_empty_text_is_an_empty_tuple():
  assert override(base_config(), ['callbacks=']).callbacks == ()
