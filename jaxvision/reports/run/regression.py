def write_report(directory, **k):
  return directory
