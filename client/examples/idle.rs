//! Opens connections and leaves them idle until its stdin ends: `idle ADDRESS PORT USER KEYFILE COUNT`.

#![allow(clippy::print_stdout, reason = "its output says when the connections are open")]

mod open;

use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, key, count] = arguments.as_slice() else {
        return Err("usage: idle ADDRESS PORT USER KEYFILE COUNT".into());
    };
    let mut all = Vec::new();
    for _ in 0..count.parse::<usize>()? {
        let opened = open::open(&format!("{host}:{port}"), user, key).await?;
        opened.connection.accepted().await?;
        all.push(opened);
    }
    println!("open");
    let mut end =
        tokio::net::unix::pipe::OpenOptions::new().unchecked(true).open_receiver("/proc/self/fd/0")?;
    let mut rest = Vec::new();
    end.read_to_end(&mut rest).await?;
    Ok(())
}
