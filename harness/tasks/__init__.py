"""Tasks: task.yaml and documents become prompts."""
