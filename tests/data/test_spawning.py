"""Programs without a guard, which worker processes would start once more."""

import subprocess
import sys

import numpy as np
import pytest

from jaxvision.data import streaming
from jaxvision.data.dataset import ArraySource
from jaxvision.errors import UserError

PROGRAM = """
import logging
from jaxvision.data.spawning import check_main_guard

log = logging.getLogger(__name__)


def train():
  check_main_guard()


{start}
print('started')
"""


@pytest.mark.parametrize(
  ('start', 'guarded'),
  [
    ('train()', False),
    ('for _ in range(1):\n  if log:\n    train()', False),
    ("if __name__ == '__main__':\n  train()", True),
    ("if __name__ != '__main__':\n  raise SystemExit\ntrain()", True),
  ],
)
def test_program_without_a_guard_is_told_where_to_put_it(start, guarded, tmp_path):
  path = tmp_path / 'program.py'
  path.write_text(PROGRAM.format(start=start))
  done = subprocess.run(
    [sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=60
  )
  assert ('started' in done.stdout) == guarded, done.stderr
  if not guarded:
    last = done.stderr.splitlines()[-1]
    assert "if __name__ == '__main__':" in last
    assert f'{path}, line ' in last


def test_prompt_has_no_file_that_a_worker_would_import():
  code = 'from jaxvision.data.spawning import check_main_guard as c; c(); print(1)'
  done = subprocess.run(
    [sys.executable, '-'], input=code, capture_output=True, text=True, timeout=60
  )
  assert done.stdout.strip() == '1', done.stderr


def test_stream_asks_before_it_starts_workers(monkeypatch):
  def refuse():
    raise UserError('no guard')

  monkeypatch.setattr(streaming, 'check_main_guard', refuse)
  source = ArraySource(np.zeros((8, 4, 4, 1), np.uint8), np.zeros(8, np.int32))
  streaming.train_stream(source, 0, 4, 2, workers=0).close()
  with pytest.raises(UserError, match='no guard'):
    streaming.train_stream(source, 0, 4, 2, workers=1)
