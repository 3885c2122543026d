"""The plan of a run, in optimiser steps."""

from jaxvision.config import base_config
from jaxvision.config.plan import RunPlan


def test_plan_counts_epochs_and_stops():
  config = base_config()
  config.batch_size, config.epochs = 100, 2.5
  config.log_every_steps = 3
  plan = RunPlan.of(config, 1000)
  assert (plan.total_steps, plan.eval_every, plan.save_every) == (25, 10, 10)
  stops, step = [], 0
  while step < plan.total_steps:
    step = plan.next_stop(step)
    stops.append(step)
  assert stops == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24, 25]
