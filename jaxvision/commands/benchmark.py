"""How fast a config trains."""

from typing import Any

from ml_collections import ConfigDict

from jaxvision import config as config_lib
from jaxvision import data
from jaxvision.training import pretrained, runtime
from jaxvision.training.logging import warn


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
  config = config_lib.validate(config)
  runtime.configure(config.deterministic)
  warning = runtime.missing_accelerator()
  if warning:
    warn(warning)
  from jaxvision.training.benchmark import measure  # no other command measures

  # Speed depends on the sizes that the weights ask for, not on the weights.
  config, _ = pretrained.begin(config)
  return measure(config, data.load(config.data), steps)
