//! One `cargo test`: its output shown as it comes, and read for the summary.

use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result};

use super::report::{Count, Reader};
use crate::shell::shown;

/// Runs it to the end; failing tests are in the count, not an error.
pub(crate) fn run(test: &mut Command) -> Result<Count> {
    println!("  $ {}", shown(test));
    if std::io::stderr().is_terminal() {
        test.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = test
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{}`", shown(test)))?;
    let (sender, lines) = mpsc::channel();
    let out = child.stdout.take().context("stdout was piped")?;
    let err = child.stderr.take().context("stderr was piped")?;
    let threads = [forward(out, sender.clone()), forward(err, sender)];

    let mut reader = Reader::default();
    for line in lines {
        if reader.read(&line) {
            println!("{line}");
        }
    }
    for thread in threads {
        thread.join().ok();
    }
    let status = child.wait()?;
    Ok(reader.finish(status.success()))
}

/// Sends each line on; ends with the stream.
fn forward(
    stream: impl Read + Send + 'static,
    lines: mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if lines
                .send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    })
}
