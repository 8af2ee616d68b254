//! For tests only: servers on port 0, seeded faults, odd child processes.

mod chance;
mod child;
mod faulty_proxy;
mod mutants;
mod patience;
mod pattern;
mod processes;
mod silence;

pub use chance::chance;
pub use child::odd_child;
pub use faulty_proxy::{Fault, FaultyProxy};
pub use mutants::mutants;
pub use patience::{eventually, eventually_async};
pub use pattern::{fill_pattern, pattern};
pub use processes::{Belongings, children, group_members, is_alive, session_members};
pub use silence::Silence;
