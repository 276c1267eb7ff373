"""Bodies of requests and answers, a module for each interface."""
