"""What a server offers, in the words of OpenAPI 3.1."""

from typing import Any

import jaxvision

_ERROR = {'$ref': '#/components/schemas/Error'}


def described(service: Any) -> dict[str, Any]:
  """Returns the description of a server.

  Args:
    service: a `Service`, whose limits and class names are told.

  Returns:
    JSON, see https://spec.openapis.org/oas/v3.1.0.
  """
  path = (
    {'/sample': _sample(service)} if service.draws else {'/predict': _predict(service)}
  )
  schemas: dict[str, Any] = {
    'Error': _object({'error': _text('What is wrong.')}, 'error')
  }
  if not service.draws:
    schemas |= _answers(service)
  return {
    'openapi': '3.1.0',
    'info': {
      'title': 'jaxvision serve',
      'version': jaxvision.__version__,
      'description': 'A trained image model. Whatever is refused is {"error": "..."}.',
    },
    'paths': {
      **path,
      '/': {'get': _got('The page.', 'text/html', {'type': 'string'})},
      '/healthz': {
        'get': {
          **_got('Whether requests are answered now.', 'application/json', _status()),
          'responses': {
            '200': _content('Ready.', 'application/json', _status()),
            '503': _content('Starting, or stopping.', 'application/json', _status()),
          },
        }
      },
      '/livez': {
        'get': _got('Whether the process lives.', 'application/json', _status())
      },
      '/metrics': {
        'get': _got('Numbers for Prometheus.', 'text/plain', {'type': 'string'})
      },
      '/openapi.json': {
        'get': _got('This description.', 'application/json', {'type': 'object'})
      },
    },
    'components': {'schemas': schemas},
  }


def _predict(service: Any) -> dict[str, Any]:
  limits = service.limits
  binary = {'type': 'string', 'contentMediaType': 'application/octet-stream'}
  files = {'type': 'array', 'items': binary, 'maxItems': limits.images}
  return {
    'post': {
      'summary': 'Predict for one image, or for several.',
      'description': (
        'One image as the body, or any number of files of a form, in fields of any name. '
        f'At most {limits.images} images, {limits.body_mb:g} MB in all, and '
        f'{limits.megapixels:g} megapixels each. An image that cannot be read is an entry '
        'with an error where another one can.'
      ),
      'parameters': [
        _parameter(
          'top',
          'How many classes, best first; a regression has all values in order.',
          {'type': 'integer', 'minimum': 1, 'default': 5},
        )
      ],
      'requestBody': {
        'required': True,
        'content': {
          'image/*': {'schema': binary},
          'application/octet-stream': {'schema': binary},
          'multipart/form-data': {'schema': _object({'file': files})},
        },
      },
      'responses': {
        '200': _content(
          'An entry for each image, in order.',
          'application/json',
          {'$ref': '#/components/schemas/Answer'},
        ),
        **_refusals(400, 408, 413, 415, 429, 500, 503),
      },
    }
  }


def _sample(service: Any) -> dict[str, Any]:
  most = service.limits.images
  number = {'type': 'integer', 'minimum': 0}
  name: dict[str, Any] = {'type': 'string'}
  if service.names:
    name['examples'] = list(service.names)
  return {
    'get': {
      'summary': 'Draw an image, or several as one grid.',
      'parameters': [
        _parameter(
          'class', 'Its name or number; without it one after the other.', name
        ),
        _parameter(
          'seed', 'Of the noise.', {**number, 'maximum': 2**31 - 1, 'default': 0}
        ),
        _parameter(
          'count',
          'How many images.',
          {**number, 'minimum': 1, 'maximum': most, 'default': 1},
        ),
      ],
      'responses': {
        '200': _content('The picture.', 'image/png', {'type': 'string'}),
        **_refusals(400, 429, 500, 503),
      },
    }
  }


def _answers(service: Any) -> dict[str, Any]:
  kind = 'value' if service.regresses else 'probability'
  number: dict[str, Any] = {'type': 'number'}
  if kind == 'probability':
    number |= {'minimum': 0, 'maximum': 1}
  one = _object(
    {'class': {'type': 'string', 'enum': list(service.names)}, kind: number},
    'class',
    kind,
  )
  image = _object(
    {
      'file': _text('The name that the file was sent with.'),
      'predictions': {'type': 'array', 'items': one},
      'error': _text('Why it cannot be read, instead of predictions.'),
    }
  )
  return {
    'Answer': _object({'images': {'type': 'array', 'items': image}}, 'images'),
  }


def _refusals(*statuses: int) -> dict[str, Any]:
  reasons = {
    400: 'No image, or a bad value.',
    408: 'Too slow.',
    413: 'Too large, or too many.',
    415: 'Another content type.',
    429: 'Too much at once; Retry-After says when to come again.',
    500: 'A fault of the server.',
    503: 'Not ready, or too slow; Retry-After says when to come again.',
  }
  return {str(s): _content(reasons[s], 'application/json', _ERROR) for s in statuses}


def _got(summary: str, kind: str, schema: Any) -> dict[str, Any]:
  return {'summary': summary, 'responses': {'200': _content(summary, kind, schema)}}


def _content(description: str, kind: str, schema: Any) -> dict[str, Any]:
  return {'description': description, 'content': {kind: {'schema': schema}}}


def _parameter(name: str, description: str, schema: Any) -> dict[str, Any]:
  return {'name': name, 'in': 'query', 'description': description, 'schema': schema}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
  return {'type': 'object', 'properties': properties, 'required': list(required)}


def _text(description: str) -> dict[str, Any]:
  return {'type': 'string', 'description': description}


def _status() -> dict[str, Any]:
  return _object({'status': {'type': 'string'}}, 'status')
