//! Processes on this machine: spawn, pipes, windows, limits, outcomes.
