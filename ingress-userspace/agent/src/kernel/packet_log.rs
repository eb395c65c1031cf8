//! Passes on the lines that a debugging build of `steer` writes, one per packet. A released object
//! writes none.

use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;

/// How often lines are read. The ring buffer holds 128 KiB: under load, later lines are lost.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// Reads the object's lines in a task of its own; nothing happens where it has none.
///
/// Must run inside a tokio runtime, before the programs are loaded: they hold on to the ring
/// buffer.
pub(super) fn start(object: &mut Ebpf) {
    if object.map("AYA_LOGS").is_none() {
        return;
    }
    match EbpfLogger::init_with_logger(object, Lines) {
        Ok(lines) => drop(tokio::spawn(follow(lines))),
        Err(error) => tracing::warn!(%error, "cannot read the packet log"),
    }
}

async fn follow(mut lines: EbpfLogger<Lines>) {
    tracing::warn!("this build logs every packet; use it for debugging only");
    loop {
        lines.flush();
        tokio::time::sleep(READ_INTERVAL).await;
    }
}

/// Gives the lines to Forebay's own log.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, line: &log::Record<'_>) {
        tracing::debug!(target: "forebay::packet", "{}", line.args());
    }

    fn flush(&self) {}
}
