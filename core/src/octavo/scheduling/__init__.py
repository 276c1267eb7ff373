"""Parts of the scheduler: settings, plan of a step, queues, capacity; standard library only."""
