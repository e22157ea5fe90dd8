"""What a command runs on: processes, memory, and warnings that say nothing."""
