"""The command `eval`."""

import json

from command_line import assert_refused


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
