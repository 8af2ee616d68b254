//! The `remora` binary: arguments in, exit status out. The only place that ends the process.

mod arguments;
mod commands;
mod escape;
mod home;
mod host_keys;
mod log;
mod modes;
mod notify;
mod printable;
mod raw_mode;
mod stdio;
mod terminal;
mod user_keys;

use std::process::ExitCode;

use clap::Parser;
use signal_hook::consts::SIGINT;
use signal_hook::low_level::emulate_default_handler;

use arguments::{Arguments, Command, ReceiptCommand};
use commands::exec::Ending;

/// A large allocation that is freed teaches the C library's allocator to keep up to twice its size for the next use instead of
/// returning it at once (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD are dynamic). Without it every half MiB of a busy
/// stream is returned to the kernel and faulted in again, page by page.
const KEPT_BY_THE_ALLOCATOR: usize = 2 * 1024 * 1024;

/// What a shell sees of a process that died of SIGINT.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_BY_THE_ALLOCATOR)));
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return terminal::usage(&error),
    };
    let status = match arguments.command {
        Command::Exec(exec) => end(commands::exec::run(*exec)),
        Command::Pty(pty) => end(commands::exec::run((*pty).into())),
        Command::Shell(shell) => end(commands::shell::run(&shell)),
        Command::Sessions(sessions) => commands::sessions::run(&sessions),
        Command::Jobs(jobs) => end(commands::jobs::list::run(&jobs)),
        Command::Attach(attach) => end(commands::jobs::attach::run(&attach)),
        Command::Logs(logs) => end(commands::jobs::logs::run(&logs)),
        Command::Wait(wait) => end(commands::jobs::wait::run(&wait)),
        Command::Signal(signal) => end(commands::jobs::verbs::signal(&signal)),
        Command::Stop(stop) => end(commands::jobs::verbs::stop(&stop)),
        Command::Forget(forget) => end(commands::jobs::verbs::forget(&forget)),
        Command::Renew(renew) => end(commands::jobs::verbs::renew(&renew)),
        Command::Detach(detach) => end(commands::jobs::verbs::detach(&detach)),
        Command::Serve(serve) => commands::serve::run(*serve),
        Command::Receipt(receipt) => match receipt.command {
            ReceiptCommand::Verify(verify) => commands::receipt::verify::run(&verify),
            ReceiptCommand::Show(show) => commands::receipt::show::run(&show),
        },
        Command::Replay(replay) => commands::replay::run(&replay),
        Command::Wire(wire) => commands::wire::run(wire),
    };
    ExitCode::from(status)
}

fn end(ending: Ending) -> u8 {
    match ending {
        Ending::Status(status) => status,
        Ending::Interrupted => {
            // Doesn't come back, whatever it may say.
            let _ = emulate_default_handler(SIGINT);
            INTERRUPTED
        }
    }
}
