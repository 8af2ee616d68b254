//! A connection that is lost, on the terminal: one line that tells since when and why, erased once the connection is back. Where nobody
//! watches, a line when it is lost and a line when it is back.

use std::io::IsTerminal;
use std::time::Duration;

use remora_client::{Connection, Heartbeat, Job, JobError, Lasting, News};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::tty;
use crate::arguments::Staying;
use crate::printable::escape;
use crate::terminal::{draw_below, erase_below, say};

/// A loss that is mended so soon is nobody's business.
const UNSEEN: Duration = Duration::from_millis(500);
/// How often the line is drawn anew.
const REDRAWN: Duration = Duration::from_secs(1);
/// Long enough for a program to look at the size of its window before that changes again.
const BETWEEN_SIZES: Duration = Duration::from_millis(100);

/// Is told of losses, and shows them.
pub(super) struct Watch {
    news: UnboundedReceiver<News>,
}

/// How a connection is held on to, and who shows its losses.
pub(super) fn watch(staying: &Staying) -> (Lasting, Watch) {
    let (sender, news) = unbounded_channel();
    // A handful an hour; who doesn't listen any more is over.
    let observer = move |news| drop(sender.send(news));
    let lasting = Lasting {
        reconnect: if staying.no_reconnect {
            Duration::ZERO
        } else {
            staying.reconnect.unwrap_or(remora_client::RECONNECT)
        },
        heartbeat: match staying.heartbeat {
            None => Heartbeat::Usual,
            Some(time) if time.is_zero() => Heartbeat::Off,
            Some(time) => Heartbeat::Every(time),
        },
        news: Some(std::sync::Arc::new(observer)),
    };
    (lasting, Watch { news })
}

/// For how long the host keeps a command that nobody is connected to.
pub(super) fn linger(staying: &Staying) -> Duration {
    staying.linger.unwrap_or(remora_client::LINGER)
}

/// Digits of an id that tell a job from others, as `remora jobs` lists it.
pub(super) const SHORT_ID: usize = 12;

/// What somebody did who left while the connection was lost.
pub(super) fn left(key: &str) -> String {
    format!("you left on {key} while the connection was lost (198)")
}

/// What becomes of a job whose connection has been lost for so long, and how to keep it.
pub(super) fn way_back(target: &str, id: &str, linger: Duration, lost: Duration) -> String {
    let (target, id) = (escape(target), id.get(..SHORT_ID).unwrap_or(id));
    match linger.saturating_sub(lost) {
        // The host counts from when it noticed, which may be a little later.
        Duration::ZERO => format!(
            "the host ends what nobody comes back to for {}: remora jobs {target} tells whether it runs",
            time(linger)
        ),
        left => format!("it runs on for {}: remora detach {target} {id} keeps it", time(left)),
    }
}

/// As [`way_back`], of somebody who leaves now.
pub(super) fn way_back_now(target: &str, id: &str, linger: Duration, connection: &Connection) -> String {
    way_back(target, id, linger, connection.lost().unwrap_or_default())
}

/// As [`way_back`], where it was tried for long enough; none where something else went wrong.
pub(super) fn way_back_from(target: &str, id: &str, linger: Duration, error: &JobError) -> Option<String> {
    match error {
        JobError::GivenUp { tried, .. } => Some(way_back(target, id, linger, *tried)),
        _ => None,
    }
}

/// A time to the next minute, or a short one to the next second.
fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 119.5 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.0} s", seconds.max(1.0)),
    }
}

struct Loss {
    /// The host's last word, or else the loss.
    since: Instant,
    why: String,
    /// It was told.
    told: bool,
}

impl Watch {
    /// Shows losses for ever. `back` is called whenever the connection is there again and a line was drawn over what is shown.
    pub(super) async fn show(&mut self, name: &str, mut back: impl FnMut()) {
        let terminal = std::io::stderr().is_terminal();
        let mut loss: Option<Loss> = None;
        loop {
            let next = match &loss {
                None => None,
                Some(loss) if !loss.told => Some(loss.since + UNSEEN),
                Some(_) if terminal => Some(Instant::now() + REDRAWN),
                Some(_) => None,
            };
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                news = self.news.recv() => match (news, &mut loss) {
                    (Some(News::Lost { why, silence }), None) => {
                        let now = Instant::now();
                        loss = Some(Loss { since: now.checked_sub(silence).unwrap_or(now), why, told: false });
                    }
                    // Nobody who reads a log later needs each attempt; who waits wants to know what it waits for.
                    (Some(News::Lost { why, .. } | News::Failed { why }), Some(loss)) if terminal => loss.why = why,
                    (Some(News::Back), Some(was)) => {
                        if was.told && terminal {
                            erase_below();
                            back();
                        } else if was.told {
                            let time = was.since.elapsed().as_secs();
                            say(&format!("{name}: the connection is back after {time} s"));
                        }
                        loss = None;
                    }
                    (Some(_), _) => {}
                    // The connection is over: whoever waits for it tells why.
                    (None, _) => return std::future::pending().await,
                },
                () = due => if let Some(loss) = &mut loss {
                    let why = escape(&loss.why);
                    if terminal {
                        let time = loss.since.elapsed().as_secs();
                        draw(&format!(
                            "remora: {name}: connection lost {time} s ago; reconnecting, {} ({why})",
                            if crate::raw_mode::is_raw() { "Ctrl-C twice leaves" } else { "Ctrl-C leaves" }
                        ));
                    } else {
                        say(&format!("{name}: connection lost ({why}); reconnecting"));
                    }
                    loss.told = true;
                },
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // What comes next on standard error must not stand behind a line of ours.
        erase_below();
    }
}

fn draw(text: &str) {
    let columns = tty::size().map_or(0, |size| size.columns) as usize;
    draw_below(&fitted(text, if columns == 0 { 80 } else { columns }));
}

/// What of a text one line holds, and whether there is more of it.
fn fitted(text: &str, columns: usize) -> String {
    let room = columns.saturating_sub(1);
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let mut fitted: String = text.chars().take(room.saturating_sub(1)).collect();
    fitted.push('…');
    fitted
}

/// Has a program that fills the screen draw it anew, as the line was drawn over it: its window becomes one row smaller for a moment.
pub(super) async fn redraw(job: &Job) {
    let Some(size) = tty::size() else { return };
    job.resize(&remora_client::proto::WindowSize { rows: size.rows.saturating_sub(1).max(1), ..size });
    tokio::time::sleep(BETWEEN_SIZES).await;
    job.resize(&size);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_cuts_is_marked() {
        assert_eq!(fitted("refused", 8), "refused");
        assert_eq!(fitted("refused", 7), "refus…");
    }

    #[test]
    fn what_becomes_of_a_job_that_is_left() {
        let told = |linger, lost| {
            way_back("web1", "0123456789abcdef", Duration::from_secs(linger), Duration::from_secs(lost))
        };
        assert_eq!(told(600, 3), "it runs on for 10 min: remora detach web1 0123456789ab keeps it");
        assert_eq!(told(600, 590), "it runs on for 10 s: remora detach web1 0123456789ab keeps it");
        assert!(told(600, 600).starts_with("the host ends what nobody comes back to for 10 min: "));
    }
}
