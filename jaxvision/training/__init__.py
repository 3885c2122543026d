"""Compiling, sharding and repeating a task's steps; checkpoints; logs."""
