"""A run and its data: what changes them is refused, what measures others is kept apart."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from command_line import DIGITS, assert_refused
from PIL import Image

import jaxvision
from jaxvision import data
from jaxvision.tasks.classification import Classification
from jaxvision.training.run_directory import RunDirectory

CONFIG = (
  DIGITS,
  '--config.data.name=folder',
  '--config.data.image_size=8',
  '--config.data.train_fraction=0.8',
  '--config.batch_size=8',
  '--config.steps=6',
  '--config.checkpoint.every_steps=3',
  '--config.parallel.data=1',
  '--config.report=False',
)


def _photos(root, *classes, count=20, seed=0):
  """Makes ROOT/CLASS/NN.png of noise around one grey for each class."""
  rng = np.random.default_rng(seed)
  for k, name in enumerate(classes):
    (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
      pixels = rng.integers(60 * k, 60 * k + 120, (8, 8), np.uint8)
      Image.fromarray(pixels).save(root / name / f'{i:02}.png')
  return root


def _files(directory):
  return {
    path.relative_to(directory): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in directory.rglob('*')
    if path.is_file()
  }


def _report(folder):
  return json.loads((folder / 'report' / 'report.json').read_text())


@pytest.fixture(scope='module')
def trained(tmp_path_factory, cache_dir):
  """A finished run and its photos; each test takes copies."""
  from jaxvision import main

  base = tmp_path_factory.mktemp('trained')
  root = _photos(base / 'photos', 'cat', 'dog')
  run = base / 'run'
  arguments = [*CONFIG, f'--config.data.root={root}', f'--workdir={run}']
  assert main.main(arguments) == 0
  return base


@pytest.fixture
def photos(trained):
  """The photos of the run, to be changed: they are put back in the end."""
  shutil.copytree(trained / 'photos', trained / 'kept')
  yield trained / 'photos'
  shutil.rmtree(trained / 'photos')
  (trained / 'kept').rename(trained / 'photos')


@pytest.fixture
def run(trained, tmp_path):
  return shutil.copytree(trained / 'run', tmp_path / 'run')


@pytest.fixture
def undrawn(monkeypatch):
  """Writes what a report says of its evaluation, without the page and its charts."""

  def write(task, directory, evaluation, summary):
    folder = directory / 'report'
    folder.mkdir(parents=True, exist_ok=True)
    notes = summary['evaluated']['notes']
    record = {'evaluated': summary['evaluated'], 'notes': notes}
    (folder / 'report.json').write_text(json.dumps(record))
    return folder / 'report.html'

  monkeypatch.setattr(Classification, 'write_report', write)


def _delete(photos):
  (photos / 'cat' / '07.png').unlink()
  return '1 image removed; none of the'


def _add(photos):
  shutil.copy(photos / 'cat' / '07.png', photos / 'cat' / '99.png')
  return '1 image added; none of the'


def _replace(photos):
  Image.new('L', (99, 99)).save(photos / 'dog' / '03.png')
  return '1 image changed'


def _rename(photos):
  (photos / 'cat').rename(photos / 'kitten')
  return 'class "cat" is gone and class "kitten" is new'


def _add_class(photos):
  _photos(photos, 'bird')
  return 'class "bird" is new (2 classes before, 3 now)'


def _remove_class(photos):
  shutil.copytree(photos / 'dog', photos / 'eel')
  shutil.rmtree(photos / 'cat')
  return 'class "cat" is gone'


CHANGES = [_delete, _add, _replace, _rename, _add_class, _remove_class]


@pytest.mark.parametrize('change', CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize('stopped', [False, True])
def test_a_run_on_changed_data_is_refused_and_left_as_it_is(
  call, photos, run, change, stopped
):
  if stopped:  # after its first checkpoint
    (run / 'summary.json').unlink()
    shutil.rmtree(run / 'checkpoints' / '6')
  words = change(photos)
  before = _files(run)
  again = [*CONFIG, f'--config.data.root={photos}', f'--workdir={run}']
  for arguments in (again, ['train', f'--workdir={run}']):
    assert_refused(call(*arguments), words, '--workdir=DIR', '--overwrite')
  assert_refused(call('eval', f'--workdir={run}'), words)
  assert _files(run) == before


def test_other_splits_of_the_same_files_are_refused(call, run):
  before = _files(run)
  for field in ('split_seed=1', 'test_fraction=0.5', 'train_fraction=0.5'):
    result = call('eval', f'--workdir={run}', f'--config.data.{field}')
    assert_refused(result, 'in another split', 'test images')
  assert _files(run) == before


def test_a_run_goes_on_with_its_data_in_another_place(
  call, run, photos, tmp_path, undrawn
):
  moved = shutil.copytree(photos, tmp_path / 'moved')
  known = (run / 'dataset.json').read_bytes()
  code, output, errors = call('eval', f'--workdir={run}', f'--config.data.root={moved}')
  assert code == 0, errors
  assert f'report: {run / "report" / "report.html"}' in output
  assert _report(run)['notes'] == []
  assert _report(run)['evaluated']['of_run']
  assert not (run / 'evaluations').exists()
  assert call('train', f'--workdir={run}')[0] == 0
  assert (run / 'dataset.json').read_bytes() == known
  assert json.loads(known)['split_rule'] == 'path'


def test_overwrite_takes_the_changed_data(photos, run):
  (run / 'evaluations' / 'x').mkdir(parents=True)
  _add_class(photos)
  directory = RunDirectory(run)
  config = directory.config()
  directory.open(config, overwrite=True)
  directory.record_data(data.load(config.data))
  assert directory.trained_on().class_names == ('bird', 'cat', 'dog')
  assert len(directory.images()) == 60
  assert not directory.evaluations.exists()


def test_a_run_of_an_earlier_version_keeps_its_rule(call, photos, run, undrawn):
  (run / 'images.npz').unlink()
  directory = RunDirectory(run)
  known = directory.dataset()
  for field in ('split_rule', 'fingerprint', 'named'):
    del known[field]
  known['examples'] = {'train': 26, 'test': 8, 'validation': 6}
  directory.dataset_file.write_text(json.dumps(known))
  dataset = data.load(directory.config().data, split_rule='index')
  known |= {'mean': dataset.mean, 'std': dataset.std}
  directory.dataset_file.write_text(json.dumps(known))
  assert call('eval', f'--workdir={run}')[0] == 0
  assert call('train', f'--workdir={run}')[0] == 0
  _delete(photos)
  before = _files(run)
  for command in ('eval', 'train'):
    assert_refused(call(command, f'--workdir={run}'), 'images before and')
  assert _files(run) == before


def test_all_of_other_data_counts_and_has_a_report_of_its_own(call, run, tmp_path):
  before = _files(run)
  new = _photos(tmp_path / 'new', 'dog', count=7, seed=1)  # in the grey of the cats
  shutil.copy(new / 'dog' / '00.png', new / 'dog' / 'last one.png')
  code, output, errors = call('eval', f'--workdir={run}', f'--config.data.root={new}')
  assert code == 0, errors
  assert '(8 images)' in output
  (folder,) = (run / 'evaluations').iterdir()
  assert folder.name.startswith('new-')
  assert {path: now for path, now in _files(run).items() if path in before} == before
  record = _report(folder)
  assert f'{new}/CLASS, 8 images' in record['notes'][0]
  assert record['evaluated']['data'] == f'{new}/CLASS'
  assert not record['evaluated']['of_run']
  assert [row['support'] for row in record['per_class']] == [0, 8]
  mistakes = record['worst_mistakes']
  assert mistakes
  html, markdown = (
    (folder / 'report' / f'report.{kind}').read_text() for kind in ('html', 'md')
  )
  assert f'{new}/CLASS, 8 images' in html
  assert 'other data than the run' in markdown
  for mistake in mistakes:
    assert (new / mistake['file']).is_file()
    assert f'<br>{mistake["file"]}' in html
    assert f'| {mistake["file"]} |' in markdown
  assert f'#{mistakes[0]["index"]}<' not in html
  _photos(new, 'bird', count=2)
  result = call('eval', f'--workdir={run}', f'--config.data.root={new}')
  assert_refused(result, 'class "bird"', 'cat, dog')


def test_other_measurements_have_reports_of_their_own(call, run, undrawn):
  assert call('eval', f'--workdir={run}')[0] == 0
  before = _files(run)
  cases = {
    'train': (['--split=train'], 'Measured on the train split.'),
    'step-3': (['--checkpoint=3'], 'Measured at the checkpoint of step 3 of 6'),
    'validation-step-3': (['--checkpoint=3', '--split=validation'], 'validation split'),
    'tta-flip': (['--config.evaluation.tta=flip'], 'evaluation.tta=flip'),
  }
  for name, (options, note) in cases.items():
    code, output, errors = call('eval', f'--workdir={run}', *options)
    assert code == 0, errors
    assert note in output
    record = _report(run / 'evaluations' / name)
    assert any(note in line for line in record['notes'])
    assert record['evaluated']['step'] == (3 if 'step-3' in name else 6)
  assert {path: now for path, now in _files(run).items() if path in before} == before
  assert call('eval', f'--workdir={run}', '--checkpoint=6', '--split=test')[0] == 0
  assert len(list((run / 'evaluations').iterdir())) == len(cases)


def test_the_report_of_a_stopped_run_says_so(call, run, undrawn):
  (run / 'summary.json').unlink()
  shutil.rmtree(run / 'checkpoints' / '6')
  assert call('eval', f'--workdir={run}')[0] == 0
  note = 'This run is unfinished: it stands at step 3 of 6.'
  assert _report(run)['notes'] == [note]
  assert _report(run)['evaluated']['of_steps'] == 6


def test_all_of_arrays_counts_on_a_run_of_other_data(run, undrawn):
  images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
  found = jaxvision.evaluate(
    run, data=(images, ['dog', 'dog', 'dog', 'dog', 'cat', 'dog']), quiet=True
  )
  assert (found['split'], found['examples']) == ('test', 6)
  (folder,) = (run / 'evaluations').iterdir()
  assert _report(folder)['evaluated']['examples'] == 6
  with pytest.raises(jaxvision.UserError, match='class "eel"'):
    jaxvision.evaluate(run, data=(images, ['dog', 'eel'] * 3), quiet=True)
  colour = np.repeat(images, 3, axis=3)
  with pytest.raises(jaxvision.UserError, match=r'and data\.channels'):
    jaxvision.evaluate(run, data=(colour, ['dog', 'cat'] * 3), quiet=True)


def test_a_damaged_record_of_the_data_is_not_taken_for_none(call, run):
  (run / 'dataset.json').write_text('{"name": ')
  before = _files(run)
  for command in ('train', 'eval'):
    assert_refused(call(command, f'--workdir={run}'), 'dataset.json is damaged')
  assert _files(run) == before
