"""Draws the dashboards without a Grafana: its own components, our panels, a real Prometheus, a browser."""
