"""The command `eval`."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import assert_refused

import jaxvision

TRAINED = Path(__file__).resolve().parents[1] / 'fixtures' / 'trained'


def test_eval_prints_the_accuracy_of_the_summary(call, finished):
  code, output, _ = call('eval', f'--workdir={finished}')
  assert code == 0
  accuracy = json.loads((finished / 'summary.json').read_text())['test_accuracy']
  assert f'accuracy {accuracy:.2%}' in output
  assert call('eval', f'--workdir={finished}', '--split=train')[0] == 0
  assert call('eval', f'--workdir={finished}', '--checkpoint=best')[0] == 0


def test_eval_tells_its_number_before_a_report_that_cannot_be_written(
  call, finished, monkeypatch
):
  def refuse(path, content):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr('jaxvision.io.write_whole', refuse)
  code, output, errors = call('eval', f'--workdir={finished}')
  assert code == 2
  assert 'accuracy' in output
  assert errors.startswith('error: Permission denied: ')


def test_eval_usage_errors(call, finished, tmp_path):
  assert_refused(call('eval', f'--workdir={tmp_path}'), 'is no run')
  assert_refused(call('eval', f'--workdir={tmp_path / "no"}'), 'is no run')
  assert_refused(call('eval', f'--workdir={finished}', '--split=tset'), 'tset')
  assert_refused(call('eval', f'--workdir={finished}', '--checkpoint=7'), '"7"')
  assert_refused(
    call('eval', f'--workdir={finished}', '--config.model.name=resnet20'),
    'takes no --config.model.name',
    'reads data.*, eval_batch_size, evaluation.*',
  )


@pytest.mark.slow
def test_average_has_a_report_of_its_own(tmp_path, capsys):
  workdir = shutil.copytree(TRAINED / 'digits_cnn', tmp_path / 'run')
  found = jaxvision.evaluate(workdir, average=2)
  assert '; mean of the checkpoints of steps 30, 60' in capsys.readouterr().out
  assert found['averaged'] == [30, 60]
  page = (workdir / 'evaluations' / 'average-2' / 'report' / 'report.md').read_text()
  assert 'Measured with the mean of the checkpoints of steps 30, 60' in page
  assert not (workdir / 'report').exists()
  test = jaxvision.data.load('digits').splits['test']
  predicted = jaxvision.load_run(workdir, average=2).predict(test.images)
  assert found['accuracy'] == pytest.approx((predicted.labels == test.labels).mean())


def test_average_usage_errors(call):
  run = f'--workdir={TRAINED / "digits_cnn"}'
  assert_refused(call('eval', run, '--average=5'), '30, 60')
  assert_refused(call('eval', run, '--average=2', '--checkpoint=30'), '"30"')
