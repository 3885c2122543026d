"""Config files and the fields in them: what is found, refused, and kept as it was."""

import pytest
from refusals import refused

from jaxvision import config as config_lib
from jaxvision.config import base_config, from_json, override, to_json


@pytest.mark.parametrize('path', ['impatience', 'data.impatience', 'zzz', 'data.zzz'])
def test_no_hint_where_nothing_is_near(path):
  assert 'did you mean' not in refused(override, base_config(), [f'{path}=1'])


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
