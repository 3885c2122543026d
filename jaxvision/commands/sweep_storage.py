"""The database of a sweep: its URL, its lock, and what is said where it cannot be used."""

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxvision.errors import UserError, short

try:
  import optuna
  import sqlalchemy
except ModuleNotFoundError as error:
  raise UserError(
    "sweep needs the package optuna: pip install 'jaxvision[sweep]'"
  ) from error

# A process tells the database so often that it still works on its trial; after so long a
# silence the others take the trial for abandoned. Compilation and I/O leave other threads
# of Python running, so a process that is alive misses no beat for long.
HEARTBEAT_SECONDS = 10
GRACE_SECONDS = 60

WORKDIR = 'workdir '  # before the identity of a directory, among a study's attributes
DATABASE_ERRORS = (
  sqlalchemy.exc.SQLAlchemyError,
  optuna.exceptions.OptunaError,
  ImportError,  # of the driver
  RuntimeError,  # Optuna's, where the tables are those of another version
)
_FORMS = 'postgresql://USER@HOST/NAME or sqlite:///FILE'
_DRIVER = 'psycopg'
_LOCK = 0x6A61_7876_6973_696F  # any number that no other program takes for a lock
# Where a machine fails between two statements, the server lets go of its lock; a process
# that waits for the lock does so for longer than that.
_LOCK_SETTINGS = (
  "SET LOCAL idle_in_transaction_session_timeout = '60s'",
  "SET LOCAL lock_timeout = '90s'",
)
# Of libpq, where the URL has no others. A lost server is noticed in a minute or so.
_CONNECTION = {
  'connect_timeout': 10,
  'keepalives_idle': 30,
  'keepalives_interval': 10,
  'keepalives_count': 3,
  'tcp_user_timeout': 60_000,
}
# A server that is started anew is back before the last of them.
_RECONNECT_SECONDS = (1, 2, 4, 8, 16, 32)


class DatabaseError(UserError):
  """The database of a sweep cannot be used."""


class Storage:
  """A database with studies, in a server or in a file.

  Its password is in no message: neither the URL nor what a driver says of it is repeated
  where the password would be in it.

  Args:
    url: as SQLAlchemy takes it. The driver of PostgreSQL is psycopg unless the URL names
      another; passwords may be left to libpq, which reads ~/.pgpass and PGPASSWORD.

  Attributes:
    name: the URL for messages.
    in_server: whether it is in a server, and not in a file.

  Raises:
    DatabaseError: the URL is that of no database, or of one that is not supported.
  """

  def __init__(self, url: str):
    self._url = _parsed(url)
    self.in_server = self._url.get_backend_name() != 'sqlite'
    shown = self._url.set(query={}, drivername=self._url.get_backend_name())
    self.name = shown.render_as_string(hide_password=True)
    self._options: dict[str, Any] = {'connect_args': {'timeout': 60}}
    if self.in_server:
      known = 'psycopg' in self._url.drivername
      self._options = {
        'connect_args': {
          key: value
          for key, value in (_CONNECTION if known else {}).items()
          if key not in self._url.query
        },
        # A connection that broke while a trial was trained is made anew.
        'pool_pre_ping': True,
      }
    self._storage: optuna.storages.RDBStorage | None = None
    self._locks: sqlalchemy.Engine | None = None  # connections that hold the lock

  def probe(self) -> None:
    """Connects to a server.

    Raises:
      DatabaseError: its driver is missing, or it cannot be reached with this URL.
    """
    if self.in_server and self._locks is None:
      with self.usable():
        options = {'connect_args': self._options['connect_args']}
        locks = sqlalchemy.create_engine(
          self._url, poolclass=sqlalchemy.NullPool, **options
        )
        with locks.connect():
          pass
        sqlalchemy.event.listen(locks, 'do_connect', _connect)
        self._locks = locks

  def open(self) -> optuna.storages.RDBStorage:
    """Returns the storage of Optuna, whose tables are made where there are none.

    Raises:
      DatabaseError: the database cannot be used.
    """
    if self._storage is None:
      _quiet_optuna()
      self.probe()
      # Optuna fills in {SCHEMA_VERSION}; braces of a path or a password stay.
      url = self._url.render_as_string(hide_password=False)
      with self.exclusive():  # two processes would make the same tables
        storage = optuna.storages.RDBStorage(
          url.replace('{', '{{').replace('}', '}}'),
          engine_kwargs=self._options,
          heartbeat_interval=HEARTBEAT_SECONDS,
          grace_period=GRACE_SECONDS,
        )
      if self.in_server:
        sqlalchemy.event.listen(storage.engine, 'do_connect', _connect)
        storage.engine.dispose()  # connections that were made before
      self._storage = storage
    return self._storage

  def studies(self) -> dict[str, set[str]]:
    """Returns the studies that are there: name -> identities of their directories.

    Raises:
      DatabaseError: the database cannot be used.
    """
    storage = self.open()
    with self.usable():
      found = optuna.get_all_study_summaries(storage, include_best_trial=False)
    return {one.study_name: workdirs(one.user_attrs) for one in found}

  @contextlib.contextmanager
  def exclusive(self) -> Iterator[None]:
    """Keeps out all other processes that want the same of this database.

    Whether a trial is free, and how many there are, is asked and answered within, and no
    other process can come in between. The lock ends with the process, however that ends.
    Do not enter it twice.

    Raises:
      DatabaseError: the database cannot be used, or could not within.
    """
    lock = self._locked_server if self.in_server else self._locked_file
    with self.usable(), lock():
      yield

  @contextlib.contextmanager
  def _locked_server(self) -> Iterator[None]:
    """Holds a lock that the server keeps for as long as the connection is there."""
    self.probe()
    assert self._locks is not None
    with self._locks.begin() as connection:
      for setting in _LOCK_SETTINGS:
        connection.execute(sqlalchemy.text(setting))
      lock = sqlalchemy.text('SELECT pg_advisory_xact_lock(:key)')
      connection.execute(lock, {'key': _LOCK})
      yield

  @contextlib.contextmanager
  def _locked_file(self) -> Iterator[None]:
    """Holds the lock of a database in a file, which lies beside it."""
    database = (self._url.database or '').removeprefix('file:')
    if database in ('', ':memory:'):  # which no other process can see
      yield
      return
    path = Path(database)
    try:
      file = path.with_name(f'.{path.name}.lock').open('w')
    except OSError as error:
      raise DatabaseError(self._problem(error)) from error
    with file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield

  @contextlib.contextmanager
  def usable(self) -> Iterator[None]:
    """Says in one line what keeps the database from being used.

    Raises:
      DatabaseError: SQLAlchemy, the driver or Optuna raised an error within.
    """
    try:
      yield
    except DATABASE_ERRORS as error:
      raise DatabaseError(self._problem(error)) from error

  def _problem(self, error: BaseException) -> str:
    if self.in_server and isinstance(error, ImportError):
      driver = self._url.get_driver_name()
      remedy = "pip install 'jaxvision[postgres]'"
      if driver != _DRIVER:
        remedy = f'install it, or name no driver in the URL for {_DRIVER}'
      return f'sweep: --storage={self.name} needs the package {driver}: {remedy}'
    while error.__cause__ is not None:  # Optuna, SQLAlchemy and then the driver
      error = error.__cause__
    text = ' '.join(str(error).split()).split(' (Background on')[0]
    advice = 'check the URL, and that the server runs'
    if not self.in_server:
      advice = 'check the path, and that the disk has room'
    elif 'password' in text:
      advice = 'give the right one in ~/.pgpass or PGPASSWORD, or in the URL'
    elif 'does not exist' in text:
      advice = 'create it, or name another'
    secrets = [self._url.password, self._url.query.get('password')]
    if any(secret and str(secret) in text for secret in secrets):
      text = type(error).__name__
    return (
      f'sweep: the database {self.name} cannot be used ({short(text, 200)}): {advice}'
    )


def _parsed(text: str) -> sqlalchemy.URL:
  try:
    url = sqlalchemy.make_url(text)
  except (sqlalchemy.exc.ArgumentError, ValueError):
    # The reason would hold the URL, and so perhaps a password.
    raise DatabaseError(
      f'sweep: --storage is no URL of a database: use {_FORMS}'
    ) from None
  if url.drivername.split('+')[0] == 'postgres':  # as libpq takes it, too
    url = url.set(drivername=url.drivername.replace('postgres', 'postgresql', 1))
  backend = url.get_backend_name()
  if backend == 'sqlite':
    return url.set(database=os.path.expanduser(url.database or ''))
  if backend != 'postgresql':
    raise DatabaseError(
      f'sweep: --storage={short(backend)}://... is not supported: use {_FORMS}'
    )
  if '@' in (url.host or ''):
    raise DatabaseError(
      'sweep: --storage: in the password of a URL, @ is written %40 (or give the password '
      'in ~/.pgpass or PGPASSWORD)'
    )
  # SQLAlchemy takes psycopg2 or psycopg by itself, depending on its version.
  return url if '+' in url.drivername else url.set(drivername=f'postgresql+{_DRIVER}')


def _quiet_optuna() -> None:
  """Hides what Optuna says of things that are as they should be."""
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
  # Of a trial that goes on from a checkpoint behind its last report.
  warnings.filterwarnings('ignore', message='The reported value is ignored')
  # Outside of `optuna.Study.optimize` they are recorded by `StudyTrial.held`.
  warnings.filterwarnings('ignore', message='Heartbeat of storage is supposed to')


def _connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
  """Connects to a server that may be away for a while, as when it is started anew.

  The server's clock, by which heartbeats are compared, is read in UTC: where it changes
  between summer and winter, all processes would seem to have been silent for an hour.
  """
  connection = None
  for seconds in _RECONNECT_SECONDS:
    try:
      connection = dialect.connect(*arguments, **options)
      break
    except dialect.loaded_dbapi.Error:
      time.sleep(seconds)
  if connection is None:
    connection = dialect.connect(*arguments, **options)
  cursor = connection.cursor()
  cursor.execute("SET TIME ZONE 'UTC'")
  cursor.close()
  connection.commit()
  return connection


def sqlite_url(path: Path) -> str:
  """Returns the URL of a database in a file, whatever characters its path has.

  >>> sqlite_url(Path('/runs/a?b/sweep.db'))
  'sqlite:////runs/a%3Fb/sweep.db'
  """
  url = sqlalchemy.URL.create('sqlite', database=str(path.absolute()))
  return url.render_as_string()


def workdirs(attributes: Mapping[str, Any]) -> set[str]:
  """Returns the identities of directories among a study's attributes."""
  return {key.removeprefix(WORKDIR) for key in attributes if key.startswith(WORKDIR)}
