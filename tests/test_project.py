"""The project itself: the import order of the house."""

import subprocess
import sys


def test_imports_follow_the_data_flow(pytestconfig):
  result = subprocess.run(
    [
      sys.executable,
      '-c',
      'from importlinter.cli import lint_imports_command as c; c()',
    ],
    cwd=pytestconfig.rootpath,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert '1 kept, 0 broken' in result.stdout
