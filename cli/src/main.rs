//! The `remora` binary: arguments in, exit status out. The only place that ends the process.

mod arguments;
mod commands;
mod home;
mod host_keys;
mod printable;
mod stdio;
mod terminal;
mod user_keys;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return terminal::usage(&error),
    };
    let status = match arguments.command {
        Command::Exec(exec) => commands::exec::run(*exec),
        Command::Serve(serve) => commands::serve::run(*serve),
        Command::Wire(wire) => commands::wire::run(wire),
    };
    ExitCode::from(status)
}
