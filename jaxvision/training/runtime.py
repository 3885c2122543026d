"""What the program runs on: devices, memory, compile cache, deterministic kernels."""

import functools
import importlib.util
import logging
import os
import platform
import resource
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jaxlib
from ml_collections import ConfigDict

from jaxvision.errors import UserError
from jaxvision.models.cpu import native, on_cpu
from jaxvision.training import processes, self_check

_PACKAGES = (
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
  'grain',
  'pillow',
  'simplejpeg',
  'cykooz-resizer',
  'onednn-cpu-gomp',
)


def start(config: ConfigDict, say: Callable[[str], None] = lambda line: None) -> None:
  """Starts the backend as a config wants it: what every command does first.

  Args:
    config: valid.
    say: prints the line about the devices.

  Raises:
    UserError: JAX cannot use the backend that the environment names, or is set up as
      no run can use it; or XLA computes wrong numbers on this CPU, whatever its options.
  """
  met = processes.join(config)  # before the backend starts
  configure(config.deterministic)
  if met:
    say(met)
  if on_cpu() and native.must_build():
    say('building the operators of oneDNN, once, in about 10 s')
  without_onednn = native.problem() if on_cpu() else None
  for warning in (missing_accelerator(), reductions_off(), without_onednn):
    if warning:
      _warn_once(warning)
  say(f'devices: {describe()}')


@functools.cache
def _warn_once(text: str) -> None:
  """Warns of something that holds for the whole process, however many runs it has."""
  logging.getLogger('jaxvision').warning(text)


def configure(deterministic: bool) -> None:
  """Sets XLA's flags and the persistent compile cache; call before the first device.

  The cache is $JAX_COMPILATION_CACHE_DIR, else `xla` beside the decoded data sets.

  Raises:
    UserError: see `check_environment`.
  """
  if deterministic and '--xla_gpu_deterministic_ops' not in os.environ.get(
    'XLA_FLAGS', ''
  ):
    flags = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{flags} --xla_gpu_deterministic_ops=true'.strip()
  if not jax.config.jax_compilation_cache_dir:
    base = os.environ.get('JAXVISION_CACHE') or Path.home() / '.cache' / 'jaxvision'
    jax.config.update('jax_compilation_cache_dir', str(Path(base) / 'xla'))
    # The default of a second would leave out the small programs of a short run.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)
  # Addresses in memory, of how oneDNN's operators are shared among devices, which would
  # make the programs of every process others.
  jax.config.update('jax_remove_custom_partitioning_ptr_from_cache_key', True)
  check_environment()


# What other projects set for all of JAX, and no run works with: the option's name, which in
# capitals is the variable's; the values; why not.
_FOREIGN_SETTINGS: tuple[tuple[str, tuple[Any, ...], str], ...] = (
  ('jax_enable_x64', (True,), 'parameters and programs are of 32 bits'),
  ('jax_disable_jit', (True,), 'training steps are compiled ahead'),
  ('jax_numpy_rank_promotion', ('raise',), 'arrays are broadcast'),
  ('jax_numpy_dtype_promotion', ('strict',), 'numbers are promoted'),
  ('jax_transfer_guard', ('disallow', 'disallow_explicit'), 'data are moved'),
)


def check_environment() -> None:
  """Raises UserError where JAX is set up, by the environment or in code, as none works.

  Starts the backend.
  """
  for option, values, why in _FOREIGN_SETTINGS:
    value = getattr(jax.config, option, None)
    if value in values:
      name = option.upper()
      raise UserError(
        f'{name}={value} is set for JAX, and no run works with it ({why}): unset it in '
        f'the environment, or take back jax.config.update("{option}", ...)'
      )
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX asserts that there is one
    wanted = os.environ.get('JAX_PLATFORMS') or jax.config.jax_platforms
    reason = ' '.join(str(error).split()).partition(' (set ')[0][:160]
    reason = reason or 'it finds no such device'
    raise UserError(
      f'JAX cannot start on JAX_PLATFORMS={wanted or ""} ({reason}): install what it '
      'names, or choose another, as in JAX_PLATFORMS=cpu'
    ) from error


def missing_accelerator() -> str | None:
  """Returns a warning where a GPU build of JAX runs on the CPU without being told to."""
  if jax.default_backend() != 'cpu' or os.environ.get('JAX_PLATFORMS') == 'cpu':
    return None
  plugins = [
    name
    for name in ('jax_cuda12_plugin', 'jax_cuda13_plugin', 'jax_rocm7_plugin')
    if importlib.util.find_spec(name)
  ]
  if not plugins:
    return None
  return (
    f'JAX has a GPU build here ({", ".join(plugins)}) but finds no GPU: training on the '
    'CPU, many times slower. Check nvidia-smi and the driver, or say that it is meant '
    'with JAX_PLATFORMS=cpu'
  )


def memory_bytes() -> int | None:
  """Returns the memory in bytes: of one device, or of the machine for a CPU."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  stats = device.memory_stats() or {}
  return stats.get('bytes_limit')


def peak_memory_bytes() -> int | None:
  """Returns the most memory used so far in bytes: device memory, or the process's."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == 'Darwin' else 1024)
  stats = device.memory_stats() or {}
  return stats.get('peak_bytes_in_use')


def device_kind() -> str:
  """Returns the device's name: for a CPU, the processor's where the system says it."""
  kind = jax.devices()[0].device_kind
  if kind.lower() != 'cpu':
    return kind
  cores = (
    len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  )
  plural = 's' * (cores != 1)
  try:
    for line in Path('/proc/cpuinfo').read_text().splitlines():
      if line.startswith('model name'):
        return f'{line.split(":", 1)[1].strip()} ({cores} core{plural})'
  except OSError:
    pass
  return f'{platform.processor() or platform.machine()} ({cores} core{plural})'


def describe() -> str:
  """Returns the line about devices, backend and memory that a run begins with."""
  memory = memory_bytes()
  size = f', {memory / 2**30:.1f} GiB' if memory else ''
  hosts = f', {jax.process_count()} processes' if jax.process_count() > 1 else ''
  return (
    f'{jax.device_count()} x {device_kind()}{size} (backend {jax.default_backend()}, '
    f'JAX {jax.__version__}{hosts})'
  )


def facts() -> dict[str, Any]:
  """Returns what `summary.json` says of the machine."""
  return {
    'backend': jax.default_backend(),
    'device_kind': device_kind(),
    'device_count': jax.device_count(),
    'process_count': jax.process_count(),
    'versions': versions(),
    'git_commit': git_commit(),
  }


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that numbers depend on."""
  found = {'python': platform.python_version()}
  for name in ('jaxvision', *_PACKAGES):
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


@functools.cache
def git_commit() -> str | None:
  """Returns the commit of the source tree, '+dirty' if changed, None outside of one.

  Asked once: what a process has loaded stays, when the tree below it moves on.
  """
  here = Path(__file__).resolve().parent

  def git(*args: str) -> str:
    return subprocess.run(
      ['git', *args], cwd=here, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()

  try:
    commit = git('rev-parse', 'HEAD')
    return commit + ('+dirty' if git('status', '--porcelain', '-uno') else '')
  except (OSError, subprocess.SubprocessError):
    return None


# In the order of preference: the first with which the self-check finds nothing wrong.
# See `compiler_options` for what each is worth.
_YNNPACK = 'xla_cpu_experimental_ynn_fusion_type'
_CPU_OPTIONS: tuple[dict[str, str] | None, ...] = (
  {_YNNPACK: 'LIBRARY_FUSION_TYPE_REDUCE'},
  {_YNNPACK: 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'},
  None,  # where XLA has no such option: its defaults
)


def compiler_options() -> dict[str, str] | None:
  """Returns the options to compile with beside XLA's defaults, or None.

  XLA:CPU hands products, sums and convolutions to YNNPACK. Its sums over a batch, which
  batch normalisation is made of, are the faster ones, where the self-check finds them
  right. Its convolutions are slower, by the kernel's gradient most of all (80 channels at
  32x32, batch 128, JAX 0.10: 630 ms against 108), and are left to XLA. Its products make
  no difference beside its sums, and a small one without them.

  Milliseconds of a training step in float32 by what YNNPACK is given, two processes in
  turn, medians (AMD EPYC, 2 cores; a process differs from the next by up to 5 %):

      JAX       network, batch          sums  sums, products  products  nothing
      0.10.1    ResNet-18, 64           1005             978
                ResNet-20, 128           356             354
                DCGAN, 64                 45              45
                digits_cnn, 64           2.3             2.2
      0.12.0.1  ResNet-18, 64                                      994     1056
                ResNet-20, 128                                     401      429
                DCGAN, 64                                           56       47
                small_filters_cnn, 256                              44       40
                digits_cnn, 64                                     2.4      2.4

  0.10.1 runs with the first column; on 0.12.0.1 the sums are wrong, which leaves the
  third.

  Raises:
    UserError: with any options, XLA computes wrong numbers on this CPU.
  """
  return _checked_cpu_options()[0] if jax.default_backend() == 'cpu' else None


def reductions_off() -> str | None:
  """Returns a warning where the self-check has switched fused reductions off."""
  wrong = _checked_cpu_options()[1] if jax.default_backend() == 'cpu' else ()
  if not wrong:
    return None
  return (
    f'jaxlib {jaxlib.__version__} computes fused reductions wrongly on a CPU '
    f'({", ".join(wrong)}): they are switched off, which makes a training step up to a '
    'third slower'
  )


@functools.cache
def _checked_cpu_options() -> tuple[dict[str, str] | None, tuple[str, ...]]:
  """Returns the options, and what the preferred ones would have computed wrongly."""
  faults: list[tuple[str, ...]] = []
  for options in _CPU_OPTIONS:
    try:
      wrong = self_check.check_cpu_reductions(options)
    except jax.errors.JaxRuntimeError:  # this version of XLA has no such option
      continue
    if not wrong:
      return options, faults[0] if faults else ()
    faults.append(wrong)
  raise UserError(
    f'jaxlib {jaxlib.__version__} computes wrong numbers on this CPU '
    f'({", ".join(faults[0])}): install another version, such as pip install '
    "'jax==0.10.1' 'jaxlib==0.10.1'"
  )
