"""The Grafana dashboards as code. `python -m deploy.grafana.code` (`make docs`) writes ../dashboards/*.json."""
