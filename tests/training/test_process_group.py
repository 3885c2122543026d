"""What the environment says of the processes of a run."""

import pytest

from jaxvision.errors import UserError
from jaxvision.training.process_group import Group, check_alone, find, first_host

ALONE = {'coordinator': '', 'processes': 0, 'process_id': -1}
JAX = {
  'JAX_COORDINATOR_ADDRESS': 'a:1234',
  'JAX_NUM_PROCESSES': '4',
  'JAX_PROCESS_ID': '3',
}
SLURM = {
  'SLURM_JOB_ID': '5000',
  'SLURM_STEP_NUM_TASKS': '4',
  'SLURM_PROCID': '2',
  'SLURM_LOCALID': '1',
  'SLURM_STEP_NODELIST': 'gpu[07-09],gpu12',
  'SLURM_NTASKS': '4',
}
MPI = {
  'OMPI_COMM_WORLD_SIZE': '2',
  'OMPI_COMM_WORLD_RANK': '1',
  'OMPI_COMM_WORLD_LOCAL_RANK': '0',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '1',
  'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911',
}


@pytest.mark.parametrize(
  ('environ', 'wanted'),
  [
    ({}, None),
    (JAX, ('a:1234', 4, 3, None)),
    ({**JAX, 'JAX_NUM_PROCESSES': '1'}, None),
    ({**SLURM, 'JAX_NUM_PROCESSES': '1'}, None),
    (
      # An indexed job of Kubernetes: one manifest, numbers from its controller.
      {**JAX, 'JAX_PROCESS_ID': '', 'JOB_COMPLETION_INDEX': '2'},
      ('a:1234', 4, 2, None),
    ),
    (
      {
        'COORDINATOR_ADDRESS': 'job-worker-0',
        'COORDINATOR_PORT': '6666',
        'NUM_PROCESSES': '3',
        'PROCESS_ID': '0',
      },
      ('job-worker-0:6666', 3, 0, None),
    ),
    (SLURM, ('gpu07:62344', 4, 2, 1)),
    # Each task has a GPU of its own and sees no other.
    ({**SLURM, 'CUDA_VISIBLE_DEVICES': '0'}, ('gpu07:62344', 4, 2, None)),
    ({**SLURM, 'CUDA_VISIBLE_DEVICES': '0,1'}, ('gpu07:62344', 4, 2, 1)),
    # A shell in an allocation, and a batch script outside of srun.
    ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, None),
    ({k: v for k, v in SLURM.items() if 'STEP' not in k}, None),
    (MPI, ('10.96.0.1:', 2, 1, 0)),
    ({**MPI, 'OMPI_COMM_WORLD_SIZE': '1'}, None),
    (
      {**MPI, 'OMPI_MCA_orte_hnp_uri': '', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'},
      ('127.0.0.1:', 2, 1, 0),
    ),
  ],
)
def test_a_group_is_found_in_the_environment(environ, wanted):
  found = find(ALONE, environ)
  if wanted is None:
    assert found is None
    return
  assert found.coordinator.startswith(wanted[0])
  assert found[1:4] == wanted[1:]
  assert 0 < int(found.coordinator.rpartition(':')[2]) < 65536


def test_a_group_is_found_in_the_config_first():
  config = {'coordinator': 'b:1', 'processes': 2, 'process_id': 1}
  assert find(config, JAX) == Group('b:1', 2, 1, None, 'config')
  assert find({**ALONE, 'processes': 1}, JAX) is None


@pytest.mark.parametrize(
  ('parallel', 'environ', 'message'),
  [
    ({'processes': 2}, {}, 'go together'),
    ({'coordinator': 'a:1', 'processes': 2}, {}, 'go together'),
    ({'coordinator': 'a', 'processes': 2, 'process_id': 0}, {}, 'no HOST:PORT'),
    ({'coordinator': 'a:1', 'processes': 2, 'process_id': 2}, {}, 'process 2 of 2'),
    ({}, {'JAX_COORDINATOR_ADDRESS': 'a:1'}, 'JAX_NUM_PROCESSES and JAX_PROCESS_ID is'),
    ({}, {**JAX, 'JAX_PROCESS_ID': ''}, 'JAX_PROCESS_ID is not'),
    ({}, {**JAX, 'JAX_NUM_PROCESSES': 'two'}, 'JAX_NUM_PROCESSES="two" is no number'),
    ({}, {**SLURM, 'SLURM_STEP_NODELIST': ''}, 'names no host'),
    ({}, {**MPI, 'OMPI_MCA_orte_hnp_uri': ''}, 'set JAX_COORDINATOR_ADDRESS'),
  ],
)
def test_a_group_that_is_not_whole_is_one_line(parallel, environ, message):
  with pytest.raises(UserError, match=message) as caught:
    find({**ALONE, **parallel}, environ)
  assert '\n' not in str(caught.value)


def test_a_command_of_one_process_is_refused_in_several():
  with pytest.raises(UserError, match='predict runs in one process.*number 3 of 4'):
    check_alone('predict', JAX)
  check_alone('predict', {})
  check_alone('predict', {'JAX_COORDINATOR_ADDRESS': 'a:1'})  # as a script exports it


def test_first_hosts_of_nested_lists():
  assert first_host('r[2,4]n[1-3],x') == 'r2n1'
