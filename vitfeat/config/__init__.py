"""The config: what it may hold, in models of settings; read, checked, and told in one line."""
