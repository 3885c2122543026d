"""One run on the nodes of a Ray cluster, a process for the GPUs of each.

python examples/launch/ray_cluster.py --config=FILE --workdir=DIR --nodes=2 --gpus=8
"""

import argparse
import os

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


def address() -> str:
  """Returns where the processes meet: the node on which this runs."""
  return f'{ray.util.get_node_ip_address()}:1234'


def train(
  index: int, count: int, coordinator: str, config: str, workdir: str
) -> dict | None:
  """Trains as one process of several; returns the summary."""
  os.environ['JAX_COORDINATOR_ADDRESS'] = coordinator
  os.environ['JAX_NUM_PROCESSES'] = str(count)
  os.environ['JAX_PROCESS_ID'] = str(index)
  import jaxvision  # in the worker, behind the variables

  return jaxvision.train(jaxvision.load_config(config), workdir)


def main() -> None:
  """Places a worker on each node and waits for them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--config', required=True)
  parser.add_argument('--workdir', required=True, help='on a disk that all nodes see')
  parser.add_argument('--nodes', type=int, default=2)
  parser.add_argument('--gpus', type=int, default=8, help='of each node')
  options = parser.parse_args()
  ray.init()
  bundles = [{'GPU': options.gpus, 'CPU': 1}] * options.nodes
  group = placement_group(bundles, strategy='STRICT_SPREAD')
  ray.get(group.ready())

  def on(index: int, gpus: int) -> dict:
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    return {'num_gpus': gpus, 'num_cpus': 1, 'scheduling_strategy': place}

  where = ray.get(ray.remote(address).options(**on(0, 0)).remote())
  worker = ray.remote(train)
  work = [
    worker.options(**on(index, options.gpus)).remote(
      index, options.nodes, where, options.config, options.workdir
    )
    for index in range(options.nodes)
  ]
  print(ray.get(work)[0])


if __name__ == '__main__':
  main()
