"""Runs that start from weights, go on without them, and give them back."""

import dataclasses
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import jaxvision
from jaxvision import data, main, weights
from jaxvision.config import load, override
from jaxvision.data.info import DatasetInfo
from jaxvision.errors import UserError
from jaxvision.training import pretrained
from jaxvision.training.run import Run
from jaxvision.training.run_directory import RunDirectory
from jaxvision.weights import Preprocessing, Weights


@pytest.fixture(scope='module')
def first_run(tmp_path_factory):
  """A run on digits with a normalisation of its own."""
  loaded = load(Path(__file__).parents[2] / 'configs' / 'digits_cnn.py')
  loaded = override(
    loaded,
    [
      'steps=60',
      'parallel.data=1',
      'data.mean=(0.4,)',
      'data.std=(0.5,)',
      'report=False',
    ],
  )
  workdir = tmp_path_factory.mktemp('first') / 'run'
  return workdir, jaxvision.train(loaded, workdir, quiet=True)


@pytest.fixture
def config(digits_config, first_run):
  return override(
    digits_config, [f'init.pretrained={first_run[0]}', 'init.skip=("head",)']
  )


def variables(workdir, checkpoint='last'):
  return jaxvision.load_run(workdir, checkpoint).state.eval_variables


def test_run_starts_from_the_weights_of_another_run(config, first_run, tmp_path):
  config.optimizer.learning_rate = 0.0
  summary = jaxvision.train(config, tmp_path / 'run', quiet=True)
  new, old = variables(tmp_path / 'run')['params'], variables(first_run[0])['params']
  for layer in old:
    same = [
      bool((np.asarray(a) == np.asarray(b)).all())
      for a, b in zip(jax.tree.leaves(new[layer]), jax.tree.leaves(old[layer]))
    ]
    # The head's bias starts at zero, and so differs from a trained one as well.
    assert not any(same) if layer == 'head' else all(same), layer
  assert summary['pretrained']['source'] == str(first_run[0])
  assert len(summary['pretrained']['sha256']) == 64
  # Its normalisation came along.
  info = jaxvision.load_run(tmp_path / 'run').info
  assert (info.mean, info.std) == ((0.4,), (0.5,))


def test_exported_weights_evaluate_as_their_run(
  config, first_run, tmp_path, capsys, monkeypatch
):
  path = tmp_path / 'weights.safetensors'
  assert main.main(['export', f'--workdir={first_run[0]}', f'--output={path}']) == 0
  assert str(path) in capsys.readouterr().out
  for source in (path, first_run[0]):
    arguments = ['--config=configs/digits_cnn.py', f'--config.init.pretrained={source}']
    assert main.main(['eval', *arguments]) == 0
    output = capsys.readouterr().out
    assert f'accuracy {first_run[1]["test_accuracy"]:.2%}' in output
    assert 'normalised by mean 0.4, std 0.5, of the weights' in output
  config.init.pretrained = str(path)
  result = jaxvision.evaluate_weights(config, quiet=True)
  assert result['accuracy'] == pytest.approx(first_run[1]['test_accuracy'], abs=1e-7)
  assert result['loss'] == pytest.approx(first_run[1]['test_loss'], rel=1e-5)


def test_classes_in_another_order_are_refused(config, first_run, tmp_path, caplog):
  run = jaxvision.load_run(first_run[0])
  facts = pretrained.preprocessing_of(run.info, run.input_shape)
  for names, refused in ((facts.class_names[::-1], True), (tuple('abcdefghij'), False)):
    path = tmp_path / 'weights.safetensors'
    other = dataclasses.replace(facts, class_names=names)
    weights.save(path, run.state.eval_variables, other, 'digits_cnn')
    config.init.pretrained = str(path)
    if refused:
      with pytest.raises(UserError, match='order of the classes'):
        jaxvision.evaluate_weights(config, quiet=True)
    else:
      jaxvision.evaluate_weights(config, quiet=True)
      assert 'class 0 is "a"' in caplog.text


@pytest.mark.slow
def test_resumed_run_does_not_need_its_pretrained_weights(config, first_run, tmp_path):
  source = tmp_path / 'source'
  shutil.copytree(first_run[0], source)
  config = override(
    config,
    [
      f'init.pretrained={source}',
      'optimizer.groups.body.match=(?!head/).*',
      'optimizer.groups.body.start=0.5',
      'checkpoint.keep=4',
    ],
  )
  jaxvision.train(config, tmp_path / 'whole', quiet=True)
  shutil.copytree(tmp_path / 'whole', tmp_path / 'run')
  # As if killed after the checkpoint of step 4, before the other layers start at 6.
  (tmp_path / 'run' / 'summary.json').unlink()
  for step in (8, 12):
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / str(step), ignore_errors=True)
  shutil.rmtree(source)
  kept = [p.name for p in (tmp_path / 'run' / 'checkpoints').glob('[0-9]*')]
  assert kept == ['4']
  jaxvision.train(config, tmp_path / 'run', quiet=True)
  chex.assert_trees_all_equal(
    jaxvision.load_run(tmp_path / 'run').state,
    jaxvision.load_run(tmp_path / 'whole').state,
  )
  with pytest.raises(UserError):
    jaxvision.train(config, tmp_path / 'another', quiet=True)


def test_adopt_sets_only_the_fields_that_the_config_leaves_open(digits_config):
  facts = Preprocessing((0.1,), (0.2,), 16, 0.9, 'bicubic')
  taken = pretrained.adopt(digits_config, facts).data
  assert (taken.mean, taken.std, taken.image_size) == ((0.1,), (0.2,), 16)
  assert (taken.crop_fraction, taken.interpolation) == (0.9, 'bicubic')
  own = override(
    digits_config,
    [
      'data.mean=(0.5,)',
      'data.std=(0.5,)',
      'data.image_size=8',
      'data.crop_fraction=1',
    ],
  )
  kept = pretrained.adopt(own, facts).data
  assert (kept.mean, kept.std, kept.image_size) == ((0.5,), (0.5,), 8)
  assert kept.crop_fraction == 1
  assert pretrained.adopt(own, Preprocessing()).to_dict() == own.to_dict()


@pytest.mark.parametrize(
  ('fields', 'facts', 'channels'),
  [
    ([], Preprocessing((0.1,) * 3, (0.2,) * 3), 3),  # the mean says so
    ([], Preprocessing(channels=3), 3),
    ([], Preprocessing((0.1,), (0.2,), channels=1), 1),
    (['data.channels=1'], Preprocessing(channels=3), 1),
    (['data.mean=(0.5,)', 'data.std=(0.5,)'], Preprocessing((0.1,) * 3, channels=3), 0),
    ([], Preprocessing((0.1,) * 4, (0.2,) * 4, channels=4), 0),
    ([], Preprocessing(), 0),
  ],
)
def test_grey_images_take_the_channels_of_the_weights(
  digits_config, fields, facts, channels
):
  config = override(digits_config, fields)
  assert pretrained.adopt(config, facts).data.channels == channels


def test_grey_images_are_normalised_as_the_weights_want(digits_config):
  facts = Preprocessing((0.1, 0.2, 0.3), (0.2,) * 3)
  dataset = data.load(pretrained.adopt(digits_config, facts).data)
  assert (dataset.image_shape, dataset.mean) == ((8, 8, 3), (0.1, 0.2, 0.3))
  with pytest.raises(UserError, match=r'have 1 channel: set data.channels=3'):
    data.load('digits', mean=(0.1, 0.2, 0.3), std=(1.0,) * 3)


def test_run_directory_records_the_source_of_the_weights(config, first_run, tmp_path):
  jaxvision.train(config, tmp_path / 'run', quiet=True)
  kept = json.loads((tmp_path / 'run' / 'pretrained.json').read_text())
  origin = pretrained.WeightsSource.from_dict(kept)
  assert origin.facts.image_size == 8
  assert origin.facts.class_names == tuple('0123456789')
  RunDirectory(tmp_path / 'run').open(config, overwrite=True)
  assert not (tmp_path / 'run' / 'pretrained.json').exists()


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    (['init.pretrained=nowhere.safetensors'], ['nowhere.safetensors']),
    (['init.pretrained={run}', 'model.features=(4,4)'], ['conv1', 'shape']),
    (['init.pretrained={run}', 'init.skip=haed'], ['haed']),
    (['init.pretrained={run}/checkpoints'], ['no run']),
    (['freeze=nothing'], ['freeze', 'nothing', 'matches no parameter']),
    (['freeze=.*'], ['every parameter']),
  ],
)
def test_bad_pretrained_input_is_one_line_before_any_work(
  more, words, first_run, tmp_path, capsys
):
  overrides = [f'--config.{m.format(run=first_run[0])}' for m in more]
  workdir = tmp_path / 'run'
  arguments = ['--config=configs/digits_cnn.py', f'--workdir={workdir}', *overrides]
  assert main.main(arguments) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert len(error.splitlines()) == 1
  for word in words:
    assert word in error
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('facts', 'given', 'whose'),
  [
    (Preprocessing((0.1,), (0.2,)), (), 'mean 0.1, std 0.2, of the weights'),
    (Preprocessing((0.1,), (0.2,)), (0.5,), 'mean 0.5, std 0.5, of the config'),
    (Preprocessing(), (), 'of the data set'),
  ],
)
def test_the_normalisation_taken_and_what_is_left_out_are_told(
  facts, given, whose, digits_config
):
  config = override(digits_config, [f'data.mean={given}', f'data.std={given}'])
  adopted = pretrained.adopt(config, facts)
  run = Run.build(adopted, DatasetInfo.of(data.load(adopted.data)))
  found = Weights({}, 'a.pth', 'ab', key='ema', left_out=('criterion.weight',))
  origin = pretrained.WeightsSource('a.pth', 'a.pth', 'ab', None, facts)
  start = pretrained.PretrainedStart(origin, found)
  line = pretrained.describe(start, weights.LoadedWeights({}, ('x',), (), ()), run)
  assert whose in line
  assert 'under ema' in line
  assert 'left out: criterion.weight' in line


def test_a_run_with_an_exported_file_beside_it_is_a_run(first_run, tmp_path):
  folder = shutil.copytree(first_run[0], tmp_path / 'run')
  jaxvision.export(folder)
  assert '(step 60)' in pretrained.read(str(folder))[0].name
  for name in ('dataset.json', 'config.json'):
    (folder / name).unlink()
  assert pretrained.read(str(folder))[0].name == str(folder / 'model.safetensors')
