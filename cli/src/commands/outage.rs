//! A connection that is lost, on the terminal: one line that tells since when and why, erased once the connection is back. Where nobody
//! watches, a line when it is lost and a line when it is back.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use remora_client::{Heartbeat, Job, Lasting, News};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::tty;
use crate::arguments::Staying;
use crate::printable::escape;
use crate::terminal::say;

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

/// What becomes of the command of somebody who left while the connection was lost.
pub(super) fn left(key: &str, linger: Duration) -> String {
    let time = match linger.as_secs() {
        seconds if seconds > 0 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        _ => format!("{linger:?}"),
    };
    format!("you left on {key} while the connection was lost (198); the host ends the command within {time}")
}

struct Loss {
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
                    (Some(News::Lost { why }), None) => loss = Some(Loss { since: Instant::now(), why, told: false }),
                    // Nobody who reads a log later needs each attempt; who waits wants to know what it waits for.
                    (Some(News::Lost { why } | News::Failed { why }), Some(loss)) if terminal => loss.why = why,
                    (Some(News::Back), Some(was)) => {
                        if was.told && terminal {
                            erase();
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
        if std::io::stderr().is_terminal() && DRAWN.swap(false, std::sync::atomic::Ordering::Relaxed) {
            erase();
        }
    }
}

/// A line of ours is on the terminal.
static DRAWN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Draws the line below the one where the cursor is, which stays there: a command may have written half of its line. IND and RI (ECMA-48,
/// `ESC D` and `ESC M`) make room for it at the foot of the screen, DECSC and DECRC keep the cursor.
fn draw(text: &str) {
    let columns = tty::size().map_or(0, |size| size.columns) as usize;
    let columns = if columns == 0 { 80 } else { columns };
    let text: String = text.chars().take(columns.saturating_sub(1)).collect();
    DRAWN.store(true, std::sync::atomic::Ordering::Relaxed);
    let _ = std::io::stderr().write_all(format!("\x1bD\x1bM\x1b7\x1b[B\r\x1b[2K{text}\x1b8").as_bytes());
}

fn erase() {
    DRAWN.store(false, std::sync::atomic::Ordering::Relaxed);
    let _ = std::io::stderr().write_all(b"\x1b7\x1b[B\r\x1b[2K\x1b8");
}

/// Has a program that fills the screen draw it anew, as the line was drawn over it: its window becomes one row smaller for a moment.
pub(super) async fn redraw(job: &Job) {
    let Some(size) = tty::size() else { return };
    job.resize(&remora_client::proto::WindowSize { rows: size.rows.saturating_sub(1).max(1), ..size });
    tokio::time::sleep(BETWEEN_SIZES).await;
    job.resize(&size);
}
