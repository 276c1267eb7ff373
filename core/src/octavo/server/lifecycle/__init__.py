"""From the command line to a server that listens, and from a signal to its end."""
