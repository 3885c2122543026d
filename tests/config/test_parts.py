"""Parts of a user's own: how a name becomes an object, and where an object comes from."""

import functools
import sys

import jax
import pytest

from jaxvision.config import parts
from jaxvision.errors import UserError


@pytest.fixture
def write(tmp_path):
  """Writes a Python file below tmp_path and returns its path."""

  def file(name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path

  return file


def message(name, directory=None):
  with pytest.raises(UserError) as error:
    parts.resolve('model.name', name, directory)
  text = str(error.value)
  assert '\n' not in text
  return text


def test_files_are_relative_to_the_config_before_the_working_directory(
  write, tmp_path, monkeypatch
):
  write('configs/net.py', 'WHERE = "config"')
  write('cwd/net.py', 'WHERE = "cwd"')
  write('cwd/other.py', 'WHERE = "other"')
  monkeypatch.chdir(tmp_path / 'cwd')
  configs = tmp_path / 'configs'
  assert parts.resolve('model.name', 'net.py:WHERE', configs) == 'config'
  assert parts.resolve('model.name', 'net.py:WHERE') == 'cwd'
  assert parts.resolve('model.name', 'other.py:WHERE', configs) == 'other'
  assert parts.resolve('model.name', f'{configs}/net.py:WHERE') == 'config'


def test_attributes_of_modules_and_nested_attributes(write):
  assert parts.resolve('optimizer.name', 'os.path:join') is sys.modules['os'].path.join
  file = write('zoo.py', 'class Zoo:\n  class Small:\n    pass\n')
  assert parts.resolve('model.name', f'{file}:Zoo.Small').__qualname__ == 'Zoo.Small'


def test_a_file_imports_the_files_beside_it(write):
  write('beside_the_part.py', 'VALUE = 3')
  file = write('part.py', 'from beside_the_part import VALUE')
  before = list(sys.path)
  assert parts.resolve('model.name', f'{file}:VALUE') == 3
  assert sys.path == before


def test_a_file_is_imported_once_until_its_content_changes(write):
  file = write('part.py', 'class Net:\n  width = 1\n')
  net = parts.resolve('model.name', f'{file}:Net')
  assert parts.resolve('model.name', f'{file}:Net') is net
  file.write_text('class Net:\n  width = 2\n')
  assert parts.resolve('model.name', f'{file}:Net').width == 2


def test_names_that_do_not_resolve(write, tmp_path):
  file = write('net.py', 'class Network:\n  pass\n')
  assert f'there is no file nett.py, did you mean "net.py"? (looked in {tmp_path}' in (
    message('nett.py:Network', tmp_path)
  )
  assert 'there is no module "no_such_package.nets"' in message(
    'no_such_package.nets:Net'
  )
  assert f'{file} has no attribute "Nettwork", did you mean "Network"?' in (
    message(f'{file}:Nettwork')
  )
  assert 'has no attribute "Big"' in message(f'{file}:Network.Big')
  assert 'write package.module:attribute or file.py:attribute' in message('net.py:')
  assert 'defined inside a function' in message(f'{file}:make.<locals>.Net')


def test_files_and_modules_that_raise_on_import(write, tmp_path, monkeypatch):
  file = write('bad.py', 'x = 1\nx / 0\n')
  assert message(f'{file}:x') == f'{file}:2: ZeroDivisionError: division by zero'
  syntax = write('syntax.py', 'x = 1\ndef (\n')
  assert message(f'{syntax}:x').startswith(f'{syntax}:2: SyntaxError: ')
  gone = write('gone.py', 'import no_such_package\n')
  assert message(f'{gone}:x').startswith(f'{gone}:1: ModuleNotFoundError: ')
  module = write('raising_module.py', '\n\nraise ValueError("two\\nlines")\n')
  monkeypatch.syspath_prepend(tmp_path)
  assert message('raising_module:x') == f'{module}:3: ValueError: two lines'


@pytest.mark.parametrize(
  ('text', 'line'),
  [
    ('import jaxvision\njaxvision.train(config)\n', 2),
    ('from jaxvision import train\nsummary = train(config)\n', 2),
    ('for seed in range(3):\n  print(jaxvision.jaxvision.train(config))\n', 2),
    ('with open("log") as log:\n  if log:\n    train(config)\n', 3),
  ],
)
def test_scripts_that_train_when_imported_are_refused(write, text, line):
  file = write('script.py', text)
  assert message(f'{file}:Net').startswith(f'{file}:{line}: train() is called when')
  assert "if __name__ == '__main__':" in message(f'{file}:Net')


def test_scripts_that_train_under_a_guard_are_parts(write):
  file = write(
    'script.py',
    'class Net:\n'
    '  def fit(self):\n'
    '    train(self)\n'
    'def main():\n'
    '  train(Net)\n'
    'go = lambda: train(Net)\n'
    "if __name__ == '__main__':\n"
    '  train(Net)\n',
  )
  assert parts.resolve('model.name', f'{file}:Net').__name__ == 'Net'


def test_calls_name_the_line_that_raised_or_the_function_that_was_called(write):
  file = write('part.py', 'def fails(x):\n  return x[0]\n\n\ndef takes(x):\n  pass\n')
  fails = parts.resolve('loss.name', f'{file}:fails')
  with pytest.raises(UserError, match=rf'loss.name: {file}:2: TypeError: '):
    parts.call('loss.name', fails, 3)
  takes = parts.resolve('loss.name', f'{file}:takes')
  with pytest.raises(UserError, match=rf'takes \({file}:5\): TypeError: .* argument'):
    parts.call('loss.name', takes)


def test_source_of_parts(write):
  write('defined_elsewhere.py', 'class Net:\n  pass\n')
  file = write('net.py', 'from defined_elsewhere import Net\n')
  # The file that the config names: a copy of it has the attribute.
  source = parts.source_of(parts.resolve('model.name', f'{file}:Net'), f'{file}:Net')
  assert (source.file, source.installed) == (str(file), False)
  assert parts.source_of(jax.jit(message)).name == 'test_parts.py:message'
  assert parts.source_of(functools.partial(message, 1)).name == 'test_parts.py:message'
  assert parts.source_of(jax.nn.relu).installed
