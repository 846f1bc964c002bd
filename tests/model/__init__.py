"""A model check of dispatch: every order of events of small configurations, over the rules that the server uses."""
