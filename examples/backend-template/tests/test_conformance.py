from octavo.testing.suite import *  # noqa: F403

BACKEND = "template"
