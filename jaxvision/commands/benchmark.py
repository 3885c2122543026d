"""`jaxvision benchmark`: how fast a config trains."""

import argparse
import json
from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.errors import UserError
from jaxvision.training import pretrained, processes, runtime
from jaxvision.training.parts import resolve_parts


def command(options: argparse.Namespace, config: ConfigDict | None) -> int:
  """Measures a config and prints what it found, as text or as JSON."""
  from jaxvision.training.benchmark import render

  assert config is not None
  if options.steps < 1:
    raise UserError(f'benchmark: --steps must be at least 1, not {options.steps}')
  result = benchmark(config, options.steps)
  if not processes.is_writer():
    return 0
  if options.json:
    print(json.dumps(result, indent=2, allow_nan=False))
  else:
    print(render(result))
  return 0


def benchmark(config: ConfigDict, steps: int = 100) -> dict[str, Any]:
  """Measures how fast a config trains here; writes nothing but the caches.

  Args:
    config: from `load_config` or `base_config`.
    steps: to time, after some that are not.

  Returns:
    What `jaxvision benchmark --json` prints: images_per_second, step_seconds,
    compile_seconds, model_flops_per_step, peak_share, input_share,
    program_memory_bytes, peak_memory_bytes and what they belong to.

  Raises:
    UserError: the config or the data are not usable.
  """
  from jaxvision.training.benchmark import measure  # no other command measures

  config = config_lib.freeze(config)
  runtime.start(config)
  # Speed depends on the sizes that the weights ask for, not on the weights.
  adopted, _ = pretrained.begin(config)
  parts = resolve_parts(adopted)
  return measure(adopted, data.load(adopted.data, source=parts.data), steps, parts)
