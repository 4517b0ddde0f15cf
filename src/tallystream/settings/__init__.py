"""Settings from the environment or a TOML file; `ocean_names` maps the names that Port's Ocean uses."""
