"""One module a component: builds it from the settings and runs it until told to stop."""
