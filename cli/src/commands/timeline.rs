//! What happened when, under `-v`.

use std::sync::Arc;
use std::time::Instant;

use remora_client::Step;

use crate::printable::escape;
use crate::terminal::say;

/// Tells under `-v` what happened when.
#[derive(Clone)]
pub(super) struct Timeline {
    pub(super) enabled: bool,
    start: Instant,
}

impl Timeline {
    pub(super) fn new(enabled: bool) -> Self {
        Timeline { enabled, start: Instant::now() }
    }

    pub(super) fn note(&self, text: &str) {
        if self.enabled {
            say(&format!("{:9.3} ms  {text}", self.start.elapsed().as_secs_f64() * 1e3));
        }
    }

    pub(super) fn observer(&self) -> Option<remora_client::Observer> {
        let timeline = self.clone();
        self.enabled.then(|| -> remora_client::Observer {
            Arc::new(move |step| {
                timeline.note(&match step {
                    Step::Resolved(addresses) => {
                        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                        format!("resolved to {}", list.join(", "))
                    }
                    Step::Connected(address) => format!("connected to {address}"),
                    Step::Secured { key, suite } => {
                        format!("TLS {suite}, host key {} {}", key.algorithm(), key.fingerprint())
                    }
                    Step::Offered(count) => format!("asked about {count} keys"),
                    Step::Proving { fingerprint, source } => {
                        format!("authenticating with key {fingerprint} ({})", escape(&source))
                    }
                    _ => "…".to_owned(),
                });
            })
        })
    }
}
