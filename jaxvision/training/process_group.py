"""What the environment says of the processes of one run: how many, which one, where they meet.

From the config (`parallel.coordinator`), JAX's own variables, Kubeflow's, Slurm's or Open
MPI's, in this order. Nothing is connected here; `processes.join` does.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvision.errors import UserError, short

_NAME = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
# What Kubeflow's JAXJob sets.
_JAXJOB = ('COORDINATOR_ADDRESS', 'COORDINATOR_PORT', 'NUM_PROCESSES', 'PROCESS_ID')
# The number of a process where JAX_PROCESS_ID is not set: one manifest or script for all.
_NUMBERS = ('JOB_COMPLETION_INDEX', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
# The fields of the config as they are by default.
_UNSET = {'coordinator': '', 'processes': 0, 'process_id': -1}
_FIRST_PORT, _PORTS = 61440, 4096  # as JAX chooses them by the number of a job


class Group(NamedTuple):
  """Where a process meets the others of its run.

  Attributes:
    coordinator: HOST:PORT of process 0.
    count: of processes.
    index: of this one.
    local: its place among those of its machine that see the same devices, each of which
      takes one; None: it takes all that it sees.
    origin: what said so.
  """

  coordinator: str
  count: int
  index: int
  local: int | None
  origin: str


_ALONE = Group('', 1, 0, None, '')  # whatever else the environment says


def find(parallel: Mapping[str, Any], environ: Mapping[str, str]) -> Group | None:
  """Returns the group that this process belongs to; None where it trains alone.

  Args:
    parallel: the section of the config, with `coordinator`, `processes`, `process_id`.
    environ: the variables of the process.

  Raises:
    UserError: what says so is not whole, or wrong.
  """
  found = (
    _by_config(parallel)
    or _by_variables(environ)
    or _by_jaxjob(environ)
    or _by_slurm(environ)
    or _by_open_mpi(environ)
  )
  if found is None or found.count == 1:
    return None
  if not 0 <= found.index < found.count:
    raise UserError(
      f'{found.origin}: process {found.index} of {found.count}: processes are numbered '
      'from 0'
    )
  if not re.fullmatch(r'\[?[^\s/]+\]?:[0-9]{1,5}', found.coordinator):
    raise UserError(
      f'{found.origin}: the coordinator "{short(found.coordinator)}" is no HOST:PORT'
    )
  return found


def check_alone(command: str, environ: Mapping[str, str]) -> None:
  """Raises UserError where a command that one process does is started in several.

  Args:
    command: its name.
    environ: the variables of the process.
  """
  try:
    found = find(_UNSET, environ)
  except UserError:  # what is not whole names no process
    return
  if found:
    raise UserError(
      f'{command} runs in one process, and by its environment ({found.origin}) this is '
      f'number {found.index} of {found.count}: start it once, without them'
    )


def _by_config(parallel: Mapping[str, Any]) -> Group | None:
  given = {name: parallel[name] for name in _UNSET}
  if given == _UNSET:
    return None
  if given['processes'] == 1:
    return _ALONE
  if not given['coordinator'] or not given['processes'] or given['process_id'] < 0:
    raise UserError(
      'config: parallel.coordinator, parallel.processes and parallel.process_id go '
      'together: HOST:PORT of process 0, how many there are, and which this one is'
    )
  return Group(
    given['coordinator'], given['processes'], given['process_id'], None, 'config'
  )


def _whole(environ: Mapping[str, str], name: str) -> int:
  """Returns a variable as a number."""
  text = environ.get(name, '')
  if not re.fullmatch('[0-9]{1,9}', text):
    raise UserError(f'{name}="{short(text)}" is no number of processes, nor of one')
  return int(text)


def _by_variables(environ: Mapping[str, str]) -> Group | None:
  address, count, index = (environ.get(name) for name in _NAME)
  if address is None and count is None and index is None:
    return None
  if count is not None and _whole(environ, _NAME[1]) == 1:
    return _ALONE
  number = next((name for name in (_NAME[2], *_NUMBERS) if environ.get(name)), None)
  if not address or count is None or number is None:
    missing = [n for n, v in zip(_NAME, (address, count, number)) if not v]
    raise UserError(
      f'{" and ".join(n for n in _NAME if environ.get(n))} is set, and '
      f'{" and ".join(missing)} is not: all three say where the processes of a run meet'
    )
  return Group(
    address, _whole(environ, _NAME[1]), _whole(environ, number), None, _NAME[0]
  )


def _by_jaxjob(environ: Mapping[str, str]) -> Group | None:
  if not all(environ.get(name) for name in _JAXJOB):
    return None
  address = f'{environ[_JAXJOB[0]]}:{environ[_JAXJOB[1]]}'
  count, index = (_whole(environ, name) for name in _JAXJOB[2:])
  return Group(address, count, index, None, 'JAXJob of Kubeflow')


def _by_slurm(environ: Mapping[str, str]) -> Group | None:
  # Only within `srun`: a batch script by itself, or a shell in an allocation, is one process
  # whatever SLURM_NTASKS says.
  if not environ.get('SLURM_STEP_NUM_TASKS'):
    return None
  count = _whole(environ, 'SLURM_STEP_NUM_TASKS')
  if count == 1:
    return None
  job, index = _whole(environ, 'SLURM_JOB_ID'), _whole(environ, 'SLURM_PROCID')
  host = first_host(environ.get('SLURM_STEP_NODELIST', ''))
  port = _FIRST_PORT + job % _PORTS
  local = _local(environ, 'SLURM_LOCALID')
  return Group(f'{host}:{port}', count, index, local, 'Slurm')


def _by_open_mpi(environ: Mapping[str, str]) -> Group | None:
  if not environ.get('OMPI_COMM_WORLD_SIZE'):
    return None
  count = _whole(environ, 'OMPI_COMM_WORLD_SIZE')
  if count == 1:
    return None
  index = _whole(environ, 'OMPI_COMM_WORLD_RANK')
  uri = environ.get('OMPI_MCA_orte_hnp_uri', '')
  host = re.search(r'tcp://([^,:;]+)', uri)
  job = environ.get('PMIX_NAMESPACE') or uri
  if environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') == str(count):
    name = '127.0.0.1'
  elif host:
    name = host[1]
  else:
    raise UserError(
      'Open MPI does not say where its first process is: set JAX_COORDINATOR_ADDRESS='
      'HOST:PORT and JAX_NUM_PROCESSES, as in mpirun -x JAX_COORDINATOR_ADDRESS=...'
    )
  port = _FIRST_PORT + int(hashlib.sha256(job.encode()).hexdigest(), 16) % _PORTS
  local = _local(environ, 'OMPI_COMM_WORLD_LOCAL_RANK')
  return Group(f'{name}:{port}', count, index, local, 'Open MPI')


def _local(environ: Mapping[str, str], name: str) -> int | None:
  """Returns which of the devices of a machine a process takes; None: those it sees."""
  number = _whole(environ, name) if environ.get(name) else 0
  seen = environ.get('CUDA_VISIBLE_DEVICES')
  # Where each task was given devices of its own, it sees no others.
  if seen is not None and len(seen.split(',')) <= number:
    return None
  return number


def first_host(nodes: str) -> str:
  """Returns the first host of a list as Slurm writes it.

  Raises:
    UserError: there is none.

  >>> first_host('gpu[007-009,12],cpu1'), first_host('a1,a2'), first_host('r[2,4]n[1-3]')
  ('gpu007', 'a1', 'r2n1')
  """
  host = re.match(r'(?:[^\[\],]|\[[^\]]*\])+', nodes)
  if not host:
    raise UserError(f'Slurm: SLURM_STEP_NODELIST="{short(nodes)}" names no host')
  return re.sub(r'\[([0-9]+)[^\]]*\]', r'\1', host[0])
