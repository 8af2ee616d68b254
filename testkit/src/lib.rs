//! For tests only: servers on port 0, seeded faults, odd child processes.
