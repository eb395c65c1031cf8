//! What the kernel says a process has used: CPU time and memory, from /proc.

use std::fs;

use anyhow::{Context, Result};

/// CPU time of a process and its children that live, user and system, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut all = 0;
    for pid in family(pid)? {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).context("the proxy has ended")?;
        all += ticks(&stat).with_context(|| format!("the proxy has ended: {stat:?}"))?;
    }
    Ok(all as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time of all threads of a process that live, in nanoseconds: for what is too short for
/// [`cpu_seconds`], which counts in ticks of 10 ms.
pub(crate) fn cpu_nanoseconds(pid: u32) -> Result<u64> {
    let mut all = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the proxy has ended")? {
        // A thread may end between the two.
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let running = stat.split_ascii_whitespace().next();
        all += running.map_or(Ok(0), str::parse)?;
    }
    Ok(all)
}

/// Memory of a process and its children that live, in KiB: what is shared counts by shares.
pub(crate) fn pss_kib(pid: u32) -> Result<u64> {
    let mut all = 0;
    for pid in family(pid)? {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .context("the proxy has ended, or is another user's")?;
        all += pss(&rollup).with_context(|| format!("read {rollup:?}"))?;
    }
    Ok(all)
}

/// A process, its children, and theirs.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut family = vec![pid];
    // Without it the workers of a proxy would cost nothing.
    fs::metadata("/proc/thread-self/children")
        .context("the kernel does not list children (CONFIG_PROC_CHILDREN)")?;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("the proxy has ended")? {
        let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for child in children.split_ascii_whitespace() {
            family.extend(self::family(child.parse()?)?);
        }
    }
    Ok(family)
}

/// `utime` and `stime`, fields 14 and 15 of proc_pid_stat(5); the second field may hold spaces. None
/// of a process that has ended and that nobody has waited for: the third field says so.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let mut fields = fields.skip(10);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The line `Pss:` of proc_pid_smaps(5); `Pss_Anon:` and its like are parts of it.
fn pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_do_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4 0 0 0 0 40 2 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn a_process_that_has_ended_has_no_bill() {
        let stat = "7 (a) Z 1 7 7 0 -1 4 0 0 0 0 40 2 0 0 20 0 1 0";
        assert_eq!(ticks(stat), None);
    }

    #[test]
    fn pss_is_the_whole_and_not_a_part() {
        let rollup = "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:    9000 kB\nPss_Dirty:  7 kB\n\
                      Pss:                1234 kB\nPss_Anon:            200 kB\n";
        assert_eq!(pss(rollup), Some(1234));
        assert_eq!(pss("Rss: 9000 kB\n"), None);
    }

    #[test]
    fn the_kernel_writes_both_as_they_are_read() {
        let spins = (0..30_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
        assert!(cpu_seconds(std::process::id()).unwrap() > 0.0, "{spins}");
        assert!(pss_kib(std::process::id()).unwrap() > 0);
    }
}
