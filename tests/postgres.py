"""A server of PostgreSQL for the tests of shared sweeps."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import sqlalchemy

USER, PASSWORD = 'sweeper', 'pass-9c1e word@{x}'


def find_binaries():
  """Returns the newest folder with PostgreSQL's server, or None.

  Debian and Ubuntu keep the binaries of the server off the PATH.
  """
  found = sorted(
    Path('/usr/lib/postgresql').glob('*/bin/initdb'),
    key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0,
  )
  on_path = shutil.which('initdb')
  initdb = Path(on_path) if on_path else (found[-1] if found else None)
  return initdb.resolve().parent if initdb else None


class Server:
  """A server in a directory of its own, on a free port, that asks for a password.

  Args:
    binaries: the folder of initdb and pg_ctl.

  Raises:
    RuntimeError: it cannot be started here.
  """

  def __init__(self, binaries):
    self._binaries = binaries
    # Not below pytest's own directory, which only its user may enter.
    self._directory = Path(tempfile.mkdtemp(prefix='jaxvision-postgres-'))
    self._as_user = {}
    if os.geteuid() == 0:  # the server refuses to run as root
      nobody = pwd.getpwnam('nobody')
      self._as_user = {'user': 'nobody', 'group': nobody.pw_gid, 'extra_groups': ()}
      os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
    with socket.create_server(('127.0.0.1', 0)) as free:
      self.port = free.getsockname()[1]
    secret = self._directory / 'password'
    secret.write_text(PASSWORD)
    secret.chmod(0o644)  # its directory lets in nobody else
    try:
      self._run(
        *(
          'initdb',
          '--no-sync',
          '--no-locale',
          '--encoding=UTF8',
          f'--username={USER}',
        ),
        *('--auth=scram-sha-256', f'--pwfile={secret}'),
      )
      self._control('start')
    except BaseException:
      self.close()
      raise

  def _run(self, program, *arguments):
    done = subprocess.run(
      [self._binaries / program, f'--pgdata={self._directory / "data"}', *arguments],
      cwd=self._directory,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
      timeout=60,
      **self._as_user,
    )
    if done.returncode:
      raise RuntimeError(f'{program}: {done.stdout}')

  def _control(self, action, *arguments):
    settings = {
      'port': self.port,
      'listen_addresses': '127.0.0.1',
      'unix_socket_directories': self._directory,
      'fsync': 'off',
    }
    options = ' '.join(f'-c {key}={value}' for key, value in settings.items())
    log = self._directory / 'log'
    self._run(
      'pg_ctl', f'--log={log}', f'--options={options}', '--wait', *arguments, action
    )

  def restart(self, seconds_away=0):
    """Starts the server anew, as its administrator does, which breaks all connections."""
    self._control('stop', '--mode=fast')
    time.sleep(seconds_away)
    self._control('start')

  def url(self, database='postgres'):
    """Returns the URL of a database."""
    made = sqlalchemy.URL.create(
      'postgresql', USER, PASSWORD, '127.0.0.1', self.port, database
    )
    return made.render_as_string(hide_password=False)

  def close(self):
    """Stops the server and removes what it wrote."""
    try:
      if (self._directory / 'data' / 'postmaster.pid').exists():
        self._control('stop', '--mode=immediate')
    finally:
      shutil.rmtree(self._directory, ignore_errors=True)


class Given:
  """A server that somebody else has started.

  Args:
    url: with the password that it asks for, of a database whose user may create others.
  """

  def __init__(self, url):
    self._url = sqlalchemy.make_url(url)
    assert self._url.password, 'JAXVISION_TEST_POSTGRES has no password'

  def url(self, database=None):
    """Returns the URL of a database."""
    url = self._url.set(database=database) if database else self._url
    return url.render_as_string(hide_password=False)

  def close(self):
    """Leaves it as it is."""


def create_database(server):
  """Returns the name of a new database."""
  name = f'jaxvision_test_{uuid.uuid4().hex[:12]}'
  _execute(server, f'CREATE DATABASE {name}')
  return name


def drop_database(server, name):
  """Removes a database, whoever is still connected to it."""
  _execute(server, f'DROP DATABASE {name} WITH (FORCE)')


def _execute(server, statement):
  url = sqlalchemy.make_url(server.url()).set(drivername='postgresql+psycopg')
  engine = sqlalchemy.create_engine(
    url, isolation_level='AUTOCOMMIT', poolclass=sqlalchemy.NullPool
  )
  with engine.connect() as connection:
    connection.execute(sqlalchemy.text(statement))
