//! Times lines in a session over one open connection: `session ADDRESS:PORT USER KEYFILE RUNS`.
//!
//! Prints one line: medians in microseconds of a bare round trip, a simulated `cd`, and a line that a shell runs, plain and captured,
//! taken in turn.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

mod open;

use std::time::Instant;

use remora_client::{Connection, Request, proto, session_name};

/// A line that its shell must run, and that changes the session.
const LINE: &str = "cd /tmp; true";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, user, key, runs] = arguments.as_slice() else {
        return Err("usage: session SOCKET|ADDRESS:PORT USER KEYFILE|- RUNS".into());
    };
    let runs: usize = runs.parse()?;
    let opened = open::open(target, user, key).await?;
    let connection = opened.connection;
    connection.open_session(session_name("bench", false)).await?;
    let mut times = [const { Vec::new() }; 4];
    for run in 0..runs + 20 {
        let directory = if run % 2 == 0 { "cd /usr" } else { "cd /" };
        let start = Instant::now();
        connection.ping().await?;
        let pinged = start.elapsed();
        let simulated = time(&connection, 3 * run, directory, true, proto::Carried::Simulated).await?;
        let plain = time(&connection, 3 * run + 1, LINE, false, proto::Carried::Unspecified).await?;
        let captured = time(&connection, 3 * run + 2, LINE, true, proto::Carried::Captured).await?;
        // The first ones warm caches and allocators.
        if run >= 20 {
            for (times, time) in times.iter_mut().zip([pinged, simulated, plain, captured]) {
                times.push(time.as_secs_f64() * 1e6);
            }
        }
    }
    let [ping, simulated, plain, captured] = times.each_mut().map(|times| median(times));
    println!("{ping:.1} {simulated:.1} {plain:.1} {captured:.1}");
    Ok(())
}

/// Runs a line, and sees to it that it was carried out as it was to be.
async fn time(
    connection: &Connection,
    number: usize,
    line: &str,
    session: bool,
    carried: proto::Carried,
) -> Result<std::time::Duration, Box<dyn std::error::Error>> {
    let mut id = [0; 16];
    id.iter_mut().zip(number.to_be_bytes()).for_each(|(to, from)| *to = from);
    let session = session.then(|| session_name("bench", true));
    let start = Instant::now();
    let mut job = connection.start(id, Request { session, ..Request::line(line) })?;
    let (mut stdout, mut stderr) = (job.stdout().ok_or("taken")?, job.stderr().ok_or("taken")?);
    let (_, _, finished) = tokio::join!(stdout.next(), stderr.next(), job.wait());
    let took = start.elapsed();
    let finished = finished?;
    let change = finished.receipt.session.map(|change| change.carried());
    if change.unwrap_or_default() != carried {
        return Err(format!("'{line}' was carried out as {change:?}").into());
    }
    Ok(took)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
