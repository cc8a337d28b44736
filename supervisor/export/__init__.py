"""``mainstay export``: alert rules with their tests, routes, dashboards and units, written from the config. Build-time code; the daemon loads nothing of it."""
