"""The page that shows a network, for the browser that runs it or for a server that does."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from jaxvision.deployment.web.runtime import LICENSE, VERSION
from jaxvision.errors import printable
from jaxvision.inference.signature import GeneratorSignature, Signature
from jaxvision.reports.html import percent, size

_HERE = Path(__file__).parent
_SCRIPTS = {
  'classifier': (
    'elements',
    'resample',
    'pictures',
    'engine',
    'predictions',
    'camera',
    'classifier',
  ),
  'generator': ('elements', 'pictures', 'noise', 'engine', 'generator'),
}
_ICON = (
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" '
  'height="16" rx="4" fill="#00609a"/><path d="M4 11V8m4 3V4m4 7V6" stroke="#fff" '
  'stroke-width="2" stroke-linecap="round"/></svg>'
)
_SHOWN = 5  # classes of a prediction


class Example(NamedTuple):
  """An image that the page offers to classify.

  Attributes:
    image: a PNG, of the size of the test split's images.
    label: the name of its class, or what else is known of it.
  """

  image: bytes
  label: str


class Part(NamedTuple):
  """A script or a style: the name of a file beside the page, or what stands in it."""

  file: str = ''
  content: str = ''

  @property
  def allowed(self) -> str:
    """What the Content-Security-Policy says to let it in."""
    if self.file:
      return "'self'"
    digest = hashlib.sha256(self.content.encode('utf-8')).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def page(
  signature: Signature | GeneratorSignature,
  *,
  title: str = '',
  examples: Sequence[Example] = (),
) -> str:
  """Returns the page of a server that runs the network, as one HTML without other files.

  It may be served under any path, and asks for what lies beside it:

  `POST predict?top=5` has the bytes of an image file as its body and the type of the file
  as its Content-Type; the frames of a camera are JPEGs. The answer is JSON:
  {"images": [{"predictions": [{"class": "cat", "probability": 0.98}, ...]}]}, the most
  probable class first; of a regression `value` in place of `probability`, and `top` is
  the number of values.

  `GET sample?seed=7&count=1&class=cat` is answered by an image file that browsers read,
  such as a PNG; `class` is missing where there are none. It is asked only of generators.

  An error is any other status than 200 with {"error": "one line"}, which is shown.

  Its Content-Security-Policy stands in it: a header of the server may only be as wide or
  wider (`frame-ancestors`, which has to be a header, may be added).

  Args:
    signature: of the network.
    title: heading; '': the config's name, or the network's.
    examples: images to try; of a generator none.
  """
  return render(
    signature,
    title=title,
    examples=examples,
    engine='server',
    style=Part(content=style()),
    scripts=(Part(content=script(signature)),),
  )


def style() -> str:
  """Returns the style of the page."""
  return (_HERE / 'app.css').read_text('utf-8')


def script(signature: Signature | GeneratorSignature) -> str:
  """Returns the script of the page, in which nothing is visible to other scripts."""
  names = _SCRIPTS['generator' if _draws(signature) else 'classifier']
  parts = [(_HERE / f'{name}.js').read_text('utf-8') for name in names]
  return "(() => {\n'use strict';\n" + '\n'.join(parts) + '})();\n'


def render(
  signature: Signature | GeneratorSignature,
  *,
  title: str,
  examples: Sequence[Example],
  engine: str,
  style: Part,
  scripts: Sequence[Part],
  files: Mapping[str, Mapping[str, Any]] | None = None,
  blocks: Mapping[str, str] | None = None,
) -> str:
  """Returns the HTML of a page.

  Args:
    signature, title, examples: see `page`.
    engine: 'browser' or 'server'.
    style, scripts: of the page.
    files: what the script loads beside the page: 'model', 'wasm', 'glue' -> name, size.
    blocks: the same names -> base64 of what is in the page in their place.
  """
  facts, draws = signature.facts, _draws(signature)
  names = [printable(name) for name in signature.class_names]
  height, width, channels = signature.image_shape
  data: dict[str, Any] = {
    'kind': signature.kind,
    'engine': engine,
    'image_shape': signature.image_shape,
    'class_names': names,
    'files': files or {},
  }
  if isinstance(signature, GeneratorSignature):
    data['latent'] = signature.latent
  else:
    data |= {
      'crop_fraction': signature.crop_fraction,
      'interpolation': signature.interpolation,
      'output': signature.output,
      'examples': [
        {
          'image': base64.b64encode(example.image).decode('ascii'),
          'label': printable(example.label),
        }
        for example in examples
      ],
    }
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  kinds = {
    'class': 'Image classifier',
    'multilabel': 'Image tagger',
    'regression': 'Image regression',
    'generator': 'Image generator',
  }
  served = engine == 'server'
  accuracy = facts.get('test_accuracy')
  first = printable(title or facts.get('config_name') or signature.model or 'Network')
  return environment.get_template(
    'generator.html.j2' if draws else 'classifier.html.j2'
  ).render(
    title=first,
    eyebrow=kinds[signature.kind],
    privacy=_privacy(draws, served),
    headline={'label': 'test accuracy', 'value': percent(accuracy)}
    if isinstance(accuracy, float | int)
    else None,
    facts=_facts(signature, files or {}),
    input_size=_input_size(height, width, channels),
    ranking=_ranking(signature.kind, len(names)),
    classes=len(names),
    engine=engine,
    policy=_policy(style, scripts, served, bool(blocks)),
    icon='data:image/svg+xml;base64,'
    + base64.b64encode(_ICON.encode()).decode('ascii'),
    style=style,
    scripts=scripts,
    blocks=blocks or {},
    data=_json(data),
    runtime_version=VERSION,
    runtime_license='' if served else LICENSE,
  )


def _draws(signature: Signature | GeneratorSignature) -> bool:
  return isinstance(signature, GeneratorSignature)


def _json(data: Mapping[str, Any]) -> str:
  """Returns JSON that ends no script element and begins no comment, whatever it holds.

  >>> _json({'name': '</script><!--'})
  '{"name": "\\\\u003c/script\\\\u003e\\\\u003c!--"}'
  """
  text = json.dumps(data)
  for character in '<>&':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return text


def _policy(style: Part, scripts: Sequence[Part], served: bool, single: bool) -> str:
  """Returns a Content-Security-Policy that lets in what the page has and nothing else."""
  allowed = list(dict.fromkeys(part.allowed for part in scripts))
  if not served:
    allowed.append("'wasm-unsafe-eval'")
  if single:
    allowed.append('blob:')  # the module that starts the WebAssembly
  return '; '.join(
    (
      "default-src 'none'",
      f'script-src {" ".join(allowed)}',
      f'style-src {style.allowed}',
      'img-src data:',
      f'connect-src {chr(39)}{"none" if single else "self"}{chr(39)}',
      # Threads of the WebAssembly, on hosts that isolate the page.
      f'worker-src {chr(39)}{"none" if single or served else "self"}{chr(39)}',
      "base-uri 'none'",
      "form-action 'none'",
    )
  )


def _privacy(draws: bool, served: bool) -> str:
  if served:
    return (
      'Images are drawn by this server.'
      if draws
      else ('Images are sent to this server and to nobody else.')
    )
  if draws:
    return 'Runs in this browser, without a server.'
  return 'Runs in this browser: your images never leave this device.'


def _input_size(height: int, width: int, channels: int) -> str:
  color = 'grey' if channels == 1 else 'colour'
  return f'{width} \N{MULTIPLICATION SIGN} {height}, {color}'


def _bytes(count: int) -> str:
  return f'{count / 1e3:.0f} kB' if count < 1e6 else size(count)


def _ranking(kind: str, count: int) -> str:
  if kind == 'regression':
    return 'Predicted values'
  noun = 'labels' if kind == 'multilabel' else 'classes'
  return f'The {min(_SHOWN, count)} most probable of {count} {noun}'


def _facts(
  signature: Signature | GeneratorSignature, files: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, str]]:
  """Lists what is known of the network as label and value."""
  known, count = signature.facts, len(signature.class_names)
  nouns = {'multilabel': 'labels', 'regression': 'values'}
  parameters = known.get('params')
  pairs = (
    ('network', signature.model),
    ('data set', known.get('dataset')),
    (nouns.get(signature.kind, 'classes'), count or None),
    ('input', _input_size(*signature.image_shape)),
    ('parameters', f'{parameters:,}' if isinstance(parameters, int) else None),
    ('model file', _bytes(files['model']['size']) if 'model' in files else None),
    ('config', known.get('config_name')),
    ('step', known.get('step')),
    ('licence', known.get('license')),
  )
  return [
    {'label': label, 'value': printable(value)}
    for label, value in pairs
    if value not in (None, '')
  ]
