//! The drain rule's clock: how long a stream is waited for once the process is over.

use std::time::{Duration, Instant};

use crate::config::DrainRule;

/// Counts for one stream, and only while there is room to read: a slow reader must not cost bytes already written.
#[derive(Debug)]
pub(crate) struct DrainClock {
    rule: DrainRule,
    /// Of [`DrainRule::total`], what was left when the clock last began to run.
    left: Duration,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    since: Instant,
    /// When the last byte came, or the clock began to run.
    last: Instant,
}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Wait on, and look again then.
    Until(Instant),
    /// Quiet for long enough: if nothing waits in the pipe, it is given up.
    Quiet,
    /// Waited for long enough, bytes or not.
    Spent,
}

impl DrainClock {
    pub(crate) fn new(rule: DrainRule) -> Self {
        DrainClock { rule, left: rule.total, running: None }
    }

    /// There is no room: time doesn't count.
    pub(crate) fn pause(&mut self, now: Instant) {
        if let Some(running) = self.running.take() {
            self.left = self.left.saturating_sub(now.saturating_duration_since(running.since));
        }
    }

    /// There is room; `progress`: and bytes came.
    pub(crate) fn run(&mut self, now: Instant, progress: bool) -> Verdict {
        let running = self.running.get_or_insert(Running { since: now, last: now });
        if progress {
            running.last = now;
        }
        let total = running.since + self.left;
        let quiet = running.last + self.rule.quiet;
        if now >= total {
            Verdict::Spent
        } else if now >= quiet {
            Verdict::Quiet
        } else {
            Verdict::Until(total.min(quiet))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{DrainClock, Verdict};
    use crate::config::DrainRule;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_counts_only_while_there_is_room() {
        let zero = Instant::now();
        let mut clock = DrainClock::new(DrainRule { quiet: 200 * MS, total: 1000 * MS });
        assert_eq!(clock.run(zero, false), Verdict::Until(zero + 200 * MS));
        assert_eq!(clock.run(zero + 150 * MS, true), Verdict::Until(zero + 350 * MS));
        // An hour without room changes nothing, and quiet is counted anew.
        clock.pause(zero + 200 * MS);
        clock.pause(zero + 300 * MS);
        let later = zero + Duration::from_secs(3600);
        assert_eq!(clock.run(later, false), Verdict::Until(later + 200 * MS));
        assert_eq!(clock.run(later + 200 * MS, false), Verdict::Quiet);
        assert_eq!(clock.run(later + 700 * MS, true), Verdict::Until(later + 800 * MS));
        assert_eq!(clock.run(later + 800 * MS, true), Verdict::Spent);
    }
}
