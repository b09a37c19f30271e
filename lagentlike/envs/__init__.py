"""RL environments: agents with tools in sandboxes, scored for trainers."""
