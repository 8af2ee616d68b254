//! `remora replay`: a command that was kept, as it looked.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use remora_client::{Class, exit_status};

use super::folder::{RECEIPT, Run, STDERR, STDOUT, read_order};
use super::receipt::read::{Wrong, read, unreadable};
use super::receipt::verify::compare;
use crate::arguments::Replay;
use crate::printable::escape;
use crate::terminal::{Failure, say};

/// Exit status of whoever writes into a pipe that nobody reads any more: 128 and SIGPIPE's number.
const CLOSED_PIPE: u8 = 141;
/// Exit status of a folder that isn't what its receipt says.
const NOT_GOOD: u8 = 1;

/// Shows it, and gives the process' exit status.
pub(crate) fn run(replay: &Replay) -> u8 {
    let played = match check(&replay.folder) {
        Ok(Ok(runs)) => play(&replay.folder, &runs),
        Ok(Err(wrong)) => {
            wrong.print(&replay.folder);
            return NOT_GOOD;
        }
        Err(failure) => Err(failure),
    };
    match played {
        Ok(true) => 0,
        Ok(false) => CLOSED_PIPE,
        Err(failure) => {
            failure.print();
            exit_status(&failure.outcome, false)
        }
    }
}

/// The order of what is there, where that is what the receipt says it is.
fn check(folder: &Path) -> Result<Result<Vec<Run>, Wrong>, Failure> {
    let receipt = folder.join(RECEIPT);
    if folder.is_dir() && !receipt.exists() {
        let wrong = Wrong::new("it holds no whole command: there is no receipt in it");
        return Ok(Err(wrong.with_hint("what is there of the output is in the files stdout and stderr")));
    }
    if !receipt.is_file() {
        return Ok(Err(Wrong::new("its receipt is no regular file")));
    }
    let statement = match read(&receipt)? {
        Ok((_, statement)) => statement,
        Err(wrong) => return Ok(Err(wrong)),
    };
    let mut left = [0; 2];
    let streams = [(STDOUT, &statement.stdout), (STDERR, &statement.stderr)];
    for (left, (name, stream)) in left.iter_mut().zip(streams) {
        let Some(stream) = stream else { continue };
        match compare(name, &folder.join(name), Some(stream), false)? {
            Ok(length) => *left = length,
            Err(wrong) => return Ok(Err(wrong)),
        }
    }
    let order = read_order(folder).map_err(|error| unreadable(&folder.join("order"), &error))?;
    let mut runs = match order {
        Ok(runs) => runs,
        Err(line) => return Ok(Err(Wrong::new(format!("line {line} of its order makes no sense")))),
    };
    // What it doesn't tell of comes behind the rest, and what isn't there can't be in it.
    for run in &runs {
        let [stdout, stderr] = &mut left;
        let left = if run.is_stderr { stderr } else { stdout };
        match left.checked_sub(run.length) {
            Some(rest) => *left = rest,
            None => return Ok(Err(Wrong::new("its order tells of more than was printed"))),
        }
    }
    if left.iter().any(|rest| *rest > 0) {
        let shown = escape(&folder.display().to_string());
        say(&format!("{shown}: its order tells of less than was printed; the rest comes behind"));
    }
    runs.extend([false, true].into_iter().zip(left).map(|(is_stderr, length)| Run { is_stderr, length }));
    Ok(Ok(runs))
}

/// Shows it; false where nobody reads any more.
fn play(folder: &Path, runs: &[Run]) -> Result<bool, Failure> {
    let open = |name: &str| {
        let path = folder.join(name);
        File::open(&path).map(BufReader::new).map_err(|error| unreadable(&path, &error))
    };
    let (mut stdout, mut stderr) = (open(STDOUT)?, open(STDERR)?);
    for run in runs {
        let played = match run.is_stderr {
            false => copy(&mut stdout, &mut io::stdout().lock(), run.length),
            true => copy(&mut stderr, &mut io::stderr().lock(), run.length),
        };
        match played {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => {
                let text = format!("{}: can't be shown: {error}", escape(&folder.display().to_string()));
                return Err(Failure::new(Class::Internal, "", text));
            }
        }
    }
    Ok(true)
}

fn copy(from: &mut impl BufRead, to: &mut impl Write, length: u64) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let bytes = from.fill_buf()?;
        let now = bytes.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(bytes);
        if now.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(now)?;
        let taken = now.len();
        from.consume(taken);
        left -= taken as u64;
    }
    // Before the other stream goes on.
    to.flush()
}
