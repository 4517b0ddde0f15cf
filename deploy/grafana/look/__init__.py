"""Draws the dashboards without a Grafana server: Grafana's components, our panels, a real Prometheus and a browser."""
