"""JAX's coordination service in a process of its own, beside process 0 of a run.

JAX has it in process 0. Where that is killed, the service is gone at once, and JAX aborts
every other process with a trace of some kilobytes. Here it outlives process 0 for a moment,
in which the others end with a line that names it; see `lifeline`.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable

from jaxvision.errors import UserError

_START_SECONDS = 60.0
_READY, _END = b'ready\n', b'end\n'

# A program by itself: the package with all of JAX would take seconds to import.
_PROGRAM = f"""
import os, sys, time
from jaxlib import _jax
address, count, heartbeats, shutdown, outlives = sys.argv[1:]
service = _jax.get_distributed_runtime_service(
  address, int(count), heartbeat_timeout=int(heartbeats), shutdown_timeout=int(shutdown)
)
os.write(1, {_READY!r})
told = sys.stdin.buffer.read()  # to the end of process 0
if told != {_END!r}:
  time.sleep(float(outlives))
os._exit(0)
"""


def start(
  port: int, count: int, heartbeat: int, shutdown: int, outlives: float
) -> Callable[[], None]:
  """Starts the service.

  Args:
    port: at which it listens.
    count: of processes.
    heartbeat: seconds without a sign of life, after which it takes a process for lost.
    shutdown: seconds in which all processes have to end, once one does.
    outlives: seconds that it goes on for when this process is killed.

  Returns:
    A function to be called before this process ends by itself: it then ends with it.

  Raises:
    UserError: it does not start.
  """
  address = os.environ.get('JAX_COORDINATOR_BIND_ADDRESS') or f'[::]:{port}'
  numbers = map(str, (count, heartbeat, shutdown, outlives))
  service = subprocess.Popen(
    [sys.executable, '-c', _PROGRAM, address, *numbers],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,  # of what it says of lost processes, the lifeline does
    start_new_session=True,  # a terminal sends Ctrl-C to all in it
  )
  assert service.stdin
  assert service.stdout
  started, _, _ = select.select([service.stdout], [], [], _START_SECONDS)
  if not started or service.stdout.readline() != _READY:
    service.kill()
    raise UserError(
      f"process 0 cannot start JAX's coordination service at {address}: choose another port "
      'for the coordinator'
    )

  def end() -> None:
    with contextlib.suppress(OSError):
      service.stdin.write(_END)
      service.stdin.flush()

  return end
