"""Files of a run directory that are damaged are told in one line, or left out."""

import dataclasses
import json
import logging

import pytest

from jaxvision.config import base_config, to_json
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training import run_directory, summary
from jaxvision.training.run_directory import RunDirectory, read_history

INFO = DatasetInfo('folder', ('a', 'b'), (8, 8, 1), (0.5,), (0.2,), {'train': 9})
READERS = {
  'config.json': RunDirectory.config,
  'dataset.json': RunDirectory.trained_on,
  'summary.json': RunDirectory.summary,
  'pretrained.json': RunDirectory.pretrained,
  'parts.json': RunDirectory.read_parts,
  'segments.json': RunDirectory.segments,
}


@pytest.fixture(autouse=True)
def untold(monkeypatch):
  monkeypatch.setattr(run_directory, '_told', set())


@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize(
  'content',
  [b'', b'{"a": ', b'[1, 2]', b'3', b'null', b'"a"', b'\xff\xfe{}', b'[' * 100_000],
)
def test_a_file_that_holds_something_else_is_one_line_that_names_it(
  tmp_path, name, content
):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError) as error:
    READERS[name](RunDirectory(tmp_path))
  told = str(error.value)
  assert told.startswith(f'{tmp_path / name} is damaged')
  assert '\n' not in told
  assert 'train command writes it anew' in told or '--overwrite' in told


@pytest.mark.parametrize('name', [*READERS, 'metrics.jsonl'])
def test_a_directory_in_the_place_of_a_file_is_one_line(tmp_path, name):
  (tmp_path / name).mkdir()
  read = READERS.get(name, RunDirectory.history)
  with pytest.raises(UserError, match=f'{name} cannot be read: Is a directory'):
    read(RunDirectory(tmp_path))


@pytest.mark.parametrize('name', READERS)
def test_a_file_without_its_keys_is_damaged(tmp_path, name):
  content = {'loss': {'name': 'a'}} if name == 'parts.json' else {'a': 1}
  (tmp_path / name).write_text(json.dumps(content))
  with pytest.raises(UserError, match='is damaged'):
    READERS[name](RunDirectory(tmp_path))


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('image_shape', [8, 8]),
    ('image_shape', 8),
    ('image_shape', [8, 8, 'x']),
    ('class_names', [1, 2]),
    ('class_names', None),
    ('mean', [0.5, 0.5]),
    ('std', ['a']),
    ('examples', {'test': 3}),
    ('examples', 3),
    ('wings', 2),
  ],
)
def test_facts_of_another_shape_are_not_those_of_a_data_set(tmp_path, field, value):
  directory = RunDirectory(tmp_path)
  facts = dataclasses.asdict(INFO)
  directory.dataset_file.write_text(json.dumps(facts))
  assert directory.trained_on() == INFO
  directory.dataset_file.write_text(json.dumps(facts | {field: value}))
  with pytest.raises(UserError, match=r'dataset\.json is damaged'):
    directory.trained_on()


def test_a_config_is_read_as_it_was_written_and_one_of_wrong_types_is_damaged(tmp_path):
  directory = RunDirectory(tmp_path)
  config = base_config()
  directory.config_file.write_text(to_json(config))
  assert directory.config() == config
  values = json.loads(to_json(config))
  for field, value in [('data', 3), ('batch_size', 'x'), ('optimizer', [])]:
    directory.config_file.write_text(json.dumps(values | {field: value}))
    with pytest.raises(UserError, match=r'config\.json is damaged'):
      directory.config()


def test_files_that_are_not_there_are_none(tmp_path):
  directory = RunDirectory(tmp_path)
  assert directory.summary() is None
  assert directory.history() == []
  with pytest.raises(UserError, match='no trained weights yet'):
    directory.trained_on()
  with pytest.raises(UserError, match='is no run'):
    directory.config()


LINES = [
  {'step': 10, 'split': 'train', 'loss': 1.25, 'accuracy': 0.5},
  {'step': 20, 'split': 'train', 'loss': None, 'accuracy': 0.75},
  {'step': 20, 'split': 'test', 'loss': 0.5, 'accuracy': 0.875},
]


def test_any_flipped_bit_costs_no_more_than_its_line(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  raw = ''.join(json.dumps(line) + '\n' for line in LINES).encode()
  path.write_bytes(raw)
  assert read_history(path) == LINES
  first = len(json.dumps(LINES[0]))
  for position in range(first):
    for bit in range(8):
      flipped = bytearray(raw)
      flipped[position] ^= 1 << bit
      path.write_bytes(flipped)
      points = read_history(path)
      assert points[-2:] == LINES[1:]
      assert len(points) in (2, 3)
      means = summary.last_epoch(points, ('loss', 'accuracy'), 20, 15)
      assert means.keys() == {'loss', 'accuracy'}


@pytest.mark.parametrize(
  'line',
  ['[]', '7', '{}', '{"step": 1}', '{"step": "1", "split": "train"}', '"a"']
  + ['{"step": true, "split": "a"}', '{"step": 1, "split": "a", "loss": [1]}']
  + ['{"step": 1, "split": "a", "loss": NaN}', '[' * 100_000],
)
def test_damaged_lines_are_counted_in_one_warning(tmp_path, caplog, line):
  path = tmp_path / 'metrics.jsonl'
  good = json.dumps(LINES[0])
  path.write_text(f'{line}\n{good}\n{line}\n{good[:-9]}')  # the last is cut off
  with caplog.at_level(logging.WARNING, 'jaxvision'):
    assert read_history(path) == read_history(path) == [LINES[0]]
  assert [r.getMessage() for r in caplog.records] == [
    f'{path}: damaged lines that are left out: 2'
  ]
