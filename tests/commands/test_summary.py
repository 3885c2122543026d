"""The command `summary`."""

import json

from command_line import DIGITS


def test_summary_of_a_config_and_of_a_run(call, finished):
  code, output, _ = call('summary', DIGITS)
  assert code == 0
  params = json.loads((finished / 'summary.json').read_text())['params']
  assert f'{params:,}' in output
  assert 'dropout=0.2' in output
  assert (
    call('summary', f'--workdir={finished}')[1].splitlines()[:3]
    == (output.splitlines()[:3])
  )
