"""Engines as the server reaches them: in a thread or a process, one client's view of both."""
