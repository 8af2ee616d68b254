//! Times `true` over one open connection, beside the same command spawned here: `warm TARGET_SOCKET|HOST:PORT RUNS`.
//!
//! Prints one line: medians in microseconds of the local spawn and of the remote job, taken in turn.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

mod open;

use std::process::{Command, Stdio};
use std::time::Instant;

use remora_client::Request;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [target, user, key, runs] = arguments.as_slice() else {
        return Err("usage: warm SOCKET|ADDRESS:PORT USER KEYFILE|- RUNS".into());
    };
    let runs: usize = runs.parse()?;
    let opened = open::open(target, user, key).await?;
    let (mut local, mut remote) = (Vec::new(), Vec::new());
    for run in 0..runs + 20 {
        let start = Instant::now();
        let status = Command::new("/bin/sh")
            .args(["-c", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .output()?;
        let spawned = start.elapsed();
        let start = Instant::now();
        let mut id = [0; 16];
        id.iter_mut().zip(run.to_be_bytes()).for_each(|(to, from)| *to = from);
        let mut job = opened.connection.start(id, Request::argv(["/bin/sh", "-c", "true"]))?;
        let (mut stdout, mut stderr) = (job.stdout().ok_or("taken")?, job.stderr().ok_or("taken")?);
        let (out, err, finished) = tokio::join!(stdout.next(), stderr.next(), job.wait());
        let finished = finished?;
        let ran = start.elapsed();
        if !status.status.success() || out.is_some() || err.is_some() || finished.receipt.outcome.is_none() {
            return Err("true failed".into());
        }
        // The first ones warm caches and allocators.
        if run >= 20 {
            local.push(spawned.as_secs_f64() * 1e6);
            remote.push(ran.as_secs_f64() * 1e6);
        }
    }
    println!("{:.1} {:.1}", median(&mut local), median(&mut remote));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
