"""Every file in examples/ is used as its docstring says, and stays short."""

import ast
import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import DIGITS, assert_refused

import jaxvision
from jaxvision import data
from jaxvision.errors import UserError
from jaxvision.training.run_directory import RunDirectory

EXAMPLES = Path(__file__).resolve().parent.parent / 'examples'
SHORT = (
  '--config.steps=6',
  '--config.checkpoint.every_steps=2',
  '--config.eval_every_steps=3',
  '--config.parallel.data=1',
  '--config.report=False',
)
TASKS = {'rotation_task.py': 'Rotation', 'denoising_task.py': 'Denoising'}


def load(name):
  spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module  # where inspect finds the source of its classes
  spec.loader.exec_module(module)
  return module


def lines_of_code(path):
  """Returns the number of lines that are neither blank, comments nor docstrings."""
  tree = ast.parse(path.read_text())
  docstrings = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
      first = node.body[0]
      if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        docstrings |= set(range(first.lineno, first.end_lineno + 1))
  return sum(
    bool(line.strip()) and not line.strip().startswith('#') and number not in docstrings
    for number, line in enumerate(path.read_text().splitlines(), start=1)
  )


@pytest.mark.parametrize('path', sorted(EXAMPLES.glob('*.py')), ids=lambda p: p.name)
def test_examples_are_short(path):
  assert lines_of_code(path) <= (120 if path.name in TASKS else 30)
  assert path.name in Path(__file__).read_text()


def test_own_network_on_own_arrays(digits_config, tmp_path, quick_compile):
  images = np.random.default_rng(0).integers(0, 256, (128, 8, 8, 1), np.uint8)
  labels = images.mean((1, 2, 3)) > 127.5
  arrays = data.from_arrays(
    (images[:96], labels[:96].astype(int)),
    (images[96:], labels[96:].astype(int)),
    class_names=('dark', 'bright'),
  )
  net = load('net.py').Net
  digits_config.model.width = 4
  summary = jaxvision.train(
    digits_config, tmp_path / 'run', quiet=True, model=net, data=arrays
  )
  assert summary['steps'] == 12
  run = jaxvision.load_run(tmp_path / 'run')
  assert run.predict(images[:2]).class_names == ('dark', 'bright')
  assert run.task.model.width == 4
  with pytest.raises(UserError, match='arrays that were passed from Python'):
    jaxvision.evaluate(tmp_path / 'run', quiet=True)
  again = jaxvision.evaluate(tmp_path / 'run', quiet=True, data=arrays)
  assert again['accuracy'] == summary['test_accuracy']


def test_a_data_set_passed_as_an_object_is_found_again_by_its_name(
  digits_config, tmp_path, quick_compile
):
  digits = data.load(digits_config.data)
  summary = jaxvision.train(digits_config, tmp_path / 'run', quiet=True, data=digits)
  again = jaxvision.evaluate(tmp_path / 'run', quiet=True)
  assert again['accuracy'] == summary['test_accuracy']


def test_own_network_from_the_directory_of_the_config_and_from_the_working_directory(
  call, tmp_path, monkeypatch, quick_compile
):
  configs = tmp_path / 'configs'
  configs.mkdir()
  config = configs / 'digits.py'
  config.write_text((EXAMPLES.parent / 'configs' / 'digits_cnn.py').read_text())
  params = []
  for folder, place, width in (
    (configs, tmp_path, 4),
    (tmp_path, tmp_path, 6),
    (configs, EXAMPLES, 4),  # there is one in both: that beside the config is taken
  ):
    for old in (configs / 'net.py', tmp_path / 'net.py'):
      old.unlink(missing_ok=True)
    (folder / 'net.py').write_text((EXAMPLES / 'net.py').read_text())
    monkeypatch.chdir(place)
    code, output, errors = call(
      'summary',
      f'--config={config}',
      '--config.model.name=net.py:Net',
      f'--config.model.width={width}',
    )
    assert code == 0, errors
    assert f'config.model: net.py:Net; fields: width={width}' in output
    params.append(output.splitlines()[:-2])
  assert params[0] == params[2] != params[1]


def test_own_loss(call, tmp_path, quick_compile):
  losses = []
  for gamma in (0, 2):
    workdir = tmp_path / str(gamma)
    code, _, errors = call(
      DIGITS,
      *SHORT,
      f'--workdir={workdir}',
      f'--config.loss.name={EXAMPLES}/own_loss.py:focal',
      f'--config.loss.gamma={float(gamma)}',
    )
    assert code == 0, errors
    losses.append(RunDirectory(workdir).history()[0]['loss'])
  assert losses[1] < losses[0]  # each example weighs less


def test_own_augmentation_and_optimizer(call, tmp_path, quick_compile):
  recipe = EXAMPLES / 'own_recipe.py'
  code, _, errors = call(
    DIGITS,
    *SHORT,
    f'--workdir={tmp_path / "run"}',
    f'--config.augment.custom={recipe}:salt',
    f'--config.optimizer.name={recipe}:signed',
    '--config.optimizer.options.momentum=0.8',
    '--config.optimizer.learning_rate=0.001',
  )
  assert code == 0, errors
  run = jaxvision.load_run(tmp_path / 'run')
  black = np.zeros((64, 8, 8, 1), np.uint8)
  salted = np.asarray(run.task.augmented(jax.random.key(0), black))
  assert set(np.unique(salted)) == {0, 255}
  record = json.loads((tmp_path / 'run' / 'parts.json').read_text())
  assert sorted(record) == [f'augment.custom {recipe}:salt', 'optimizer.name']


def test_own_callback_counts_on_after_a_kill(call, tmp_path, quick_compile):
  """A loss that never falls ends a run after three evaluations, resumed or not."""
  workdir = tmp_path / 'run'
  arguments = (
    DIGITS,
    '--config.parallel.data=1',
    '--config.report=False',
    '--config.steps=20',
    '--config.eval_every_steps=1',
    '--config.checkpoint.every_steps=1',
    '--config.checkpoint.keep=20',
    '--config.optimizer.learning_rate=0.0',
    '--config.model.batch_norm=False',  # whose running statistics would move
    f'--config.callbacks={EXAMPLES}/early_stopping.py:Patience',
    f'--workdir={workdir}',
  )
  code, output, errors = call(*arguments)
  assert code == 0, errors
  assert 'best three evaluations ago' in output
  ended = RunDirectory(workdir).summary()['steps']
  # As if it had been killed after its second checkpoint.
  for path in (workdir / 'checkpoints').iterdir():
    if path.name.isdigit() and int(path.name) > 2:
      for file in sorted(path.rglob('*'), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
      path.rmdir()
  (workdir / 'summary.json').unlink()
  code, output, errors = call(*arguments)
  assert code == 0, errors
  assert 'resumed at step 2' in output
  summary = RunDirectory(workdir).summary()
  assert summary['steps'] == ended
  assert 'best three evaluations ago' in summary['stopped_by']


@pytest.fixture(
  scope='module',
  params=[
    'rotation_task.py',
    pytest.param('denoising_task.py', marks=pytest.mark.slow),
  ],
)
def task_run(request, tmp_path_factory, command):
  """The arguments of a task's run, and the directory of one that was not interrupted."""
  workdir = tmp_path_factory.mktemp('task') / 'whole'
  arguments = (
    DIGITS,
    f'--config.task={EXAMPLES / request.param}:{TASKS[request.param]}',
    '--config.steps=60',
    '--config.checkpoint.every_steps=5',
    '--config.eval_every_steps=30',
    '--config.parallel.data=1',
  )
  process = command(*arguments, f'--workdir={workdir}')
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return arguments, workdir


def test_own_task_writes_a_report(task_run):
  assert (task_run[1] / 'report' / 'report.html').is_file()


def test_own_task_is_evaluated_and_compared(task_run, call, tmp_path):
  arguments, workdir = task_run
  summary = RunDirectory(workdir).summary()
  result = jaxvision.evaluate(workdir, quiet=True)
  assert result['loss'] == pytest.approx(summary['test_loss'], rel=1e-5)
  name = summary['measure']['logged']
  assert result[name] == pytest.approx(summary[f'test_{name}'], rel=1e-5)
  other = tmp_path / 'seed1'
  code, _, errors = call(*arguments, '--config.seed=1', f'--workdir={other}')
  assert code == 0, errors
  code, output, errors = call(
    'compare', workdir, other, f'--output={tmp_path / "comparison"}'
  )
  assert code == 0, errors
  assert '2 seeds' in output


def test_own_task_predicts_or_says_that_it_cannot(task_run, call, tmp_path):
  arguments, workdir = task_run
  images = data.load('digits').splits['test'].images[:4]
  run = jaxvision.load_run(workdir)
  outputs = run.predict(images).probabilities
  if 'Denoising' in arguments[1]:
    assert outputs.shape == images.shape
    return
  np.testing.assert_allclose(outputs.sum(-1), 1, rtol=1e-5)
  assert outputs.shape == (4, 4)
  assert_refused(call('sample', f'--workdir={workdir}'), 'which cannot sample')
