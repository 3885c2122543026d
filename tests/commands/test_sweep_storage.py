"""The database of a sweep: URLs, drivers, and that passwords stay where they are."""

import sys

import pytest
from command_line import DIGITS, assert_refused

from jaxvision.commands.sweep_storage import Storage
from jaxvision.errors import UserError, quoted, without_passwords

SWEEP = ('sweep', DIGITS, '--sweep=experiments/sweeps/digits.py')


@pytest.fixture
def refused(call, tmp_path):
  """Asserts that `sweep` with a database is refused in one line, and writes nothing."""

  def check(url, *wanted):
    result = call(*SWEEP, f'--workdir={tmp_path / "sweep"}', f'--storage={url}')
    assert_refused(result, *wanted)
    assert 'secret' not in result[1] + result[2]
    assert not (tmp_path / 'sweep').exists()

  return check


@pytest.mark.parametrize(
  ('url', 'wanted'),
  [
    ('secret', 'is no URL of a database: use postgresql://USER@HOST/NAME or sqlite'),
    ('postgresql://me:secret/sweeps', 'is no URL of a database'),
    ('postgresql://me:se@cret@host/sweeps', '@ is written %40'),
    ('postgresql+none://me:secret@host/sweeps', 'postgresql.none'),
    ('mysql://me:secret@host/sweeps', 'mysql://... is not supported: use postgresql'),
    ('postgresql://me:secret@127.0.0.1:1/sweeps', 'refused'),
    ('postgresql://me@127.0.0.1:1/sweeps?password=secret', 'refused'),
    ('postgresql://me:secret@127.0.0.1:1/sweeps?secrets=1', 'cannot be used'),
    (
      'postgres://me:secret@127.0.0.1:1/sweeps',
      'postgresql://me:***@127.0.0.1:1/sweeps',
    ),
    ('postgresql://me:secret@host.invalid/sweeps', 'host.invalid'),
    ('sqlite:////no/such/folder/sweep.db', 'No such file or directory'),
  ],
)
def test_database_that_cannot_be_used_is_named_in_one_line(url, wanted, refused):
  refused(url, wanted)


def test_file_that_is_no_database_is_refused(refused, tmp_path):
  (tmp_path / 'notes.txt').write_text('secret ' * 1000)
  refused(f'sqlite:///{tmp_path}/notes.txt', 'notes.txt', 'not a database')


@pytest.mark.parametrize(
  ('url', 'driver', 'remedy'),
  [
    ('postgresql://me:secret@host/x', 'psycopg', "pip install 'jaxvision[postgres]'"),
    ('postgresql+psycopg2://me:secret@host/x', 'psycopg2', 'name no driver in the URL'),
  ],
)
def test_missing_driver_is_named(url, driver, remedy, refused, monkeypatch):
  monkeypatch.setitem(sys.modules, driver, None)
  refused(url, f'needs the package {driver}', remedy)


@pytest.mark.parametrize(
  'arguments',
  [
    ('--storge=postgresql://me:secret@host/sweeps',),
    ('--storge=postgresql://me:secret@host.of.a.long.name.example.org:5432/sweeps',),
    ('postgresql://me:secret@host/sweeps',),
    ('--workdir=postgresql://me:secret@host/sweeps',),
    ('--sweep=postgresql://me:secret@host/sweeps',),
    ('--sweep=postgresql://host/sweeps?password=secret',),
  ],
)
def test_mistyped_command_line_does_not_repeat_a_password(arguments, call):
  result = call(*SWEEP, *arguments)
  assert_refused(result, '***')
  assert 'secret' not in result[2]


@pytest.mark.parametrize(
  ('text', 'masked'),
  [
    ('postgresql://me:secret@host:5432/x', 'postgresql://me:***@host:5432/x'),
    ('postgresql://me:se/cr:e@t@host/x', 'postgresql://me:***@host/x'),
    ('--storage=postgresql://me:sec ret@host', '--storage=postgresql://me:***@host'),
    ('no "x://:secret@host": it is', 'no "x://:***@host": it is'),
    ('x://host/x?a=1&sslpassword=secret&b=2', 'x://host/x?a=1&sslpassword=***&b=2'),
    ('http://127.0.0.1:8000/predict', 'http://127.0.0.1:8000/predict'),
    ('postgresql://me@host/x', 'postgresql://me@host/x'),
  ],
)
def test_passwords_are_masked(text, masked):
  assert without_passwords(text) == masked
  assert str(UserError(text)) == masked
  assert 'secret' not in quoted(text)


def test_braces_in_a_path_stay(tmp_path):
  folder = tmp_path / '{0} {SCHEMA_VERSION}'
  folder.mkdir()
  assert Storage(f'sqlite:///{folder}/{{a}}.db').studies() == {}
  assert {path.name for path in folder.iterdir()} == {'{a}.db', '.{a}.db.lock'}
