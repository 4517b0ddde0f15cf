"""The spool: `file` is the SQLite file, `spool` its thread, `slots` which process owns which file."""
