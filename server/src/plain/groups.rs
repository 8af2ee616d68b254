//! What finished commands have left running in their process groups: it ends with the connection.

use std::path::Path;
use std::time::Duration;

use remora_engine::has_living_member;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks at who is left.
const PAUSE: Duration = Duration::from_millis(20);

/// Process groups whose leader, the shell of a request, is over.
#[derive(Debug, Default)]
pub(super) struct Groups(Vec<Pid>);

impl Groups {
    /// Notes the group of a finished job, if somebody is left in it.
    pub(super) async fn note(&mut self, leader: i32) {
        self.0.extend(Pid::from_raw(leader));
        self.prune().await;
    }

    /// Ends them: SIGTERM, and after a grace SIGKILL.
    pub(super) async fn end(mut self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
        let end = tokio::time::Instant::now() + GRACE;
        self.prune().await;
        while !self.0.is_empty() && tokio::time::Instant::now() < end {
            tokio::time::sleep(PAUSE).await;
            self.prune().await;
        }
        self.signal(Signal::KILL);
    }

    fn signal(&mut self, signal: Signal) {
        self.0.retain(|group| is_same(*group) && kill_process_group(*group, signal).is_ok());
    }

    /// Forgets groups without a living member.
    async fn prune(&mut self) {
        self.0.retain(|group| is_same(*group));
        if self.0.is_empty() {
            return;
        }
        // Zombies that nobody has reaped yet keep a group's number, too. Reading /proc is not for this thread.
        let groups = std::mem::take(&mut self.0);
        let living = tokio::task::spawn_blocking(move || {
            let mut groups = groups;
            groups.retain(|group| has_living_member(group.as_raw_nonzero().get()));
            groups
        });
        self.0 = living.await.unwrap_or_default();
    }
}

/// Whether the group is still the one that was noted, and has a member. The kernel gives its number to no new process while
/// it has (alloc_pid in the kernel's kernel/pid.c), so a process of that number means that it had none at some time.
fn is_same(group: Pid) -> bool {
    test_kill_process_group(group).is_ok()
        && !Path::new(&format!("/proc/{}", group.as_raw_nonzero())).exists()
}
