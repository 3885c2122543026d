"""Shared by the tests of the command line."""

DIGITS = '--config=configs/digits_cnn.py'


def assert_refused(result, *wanted):
  code, _, errors = result
  assert code == 2, errors
  # What was begun, such as preparing a set, may be told before; the error is one line.
  *before, line = errors.strip().splitlines()
  assert line.startswith('error: ')
  assert not any('error' in other or 'Traceback' in other for other in before), errors
  for text in wanted:
    assert text in line
