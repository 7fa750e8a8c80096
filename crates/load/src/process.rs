//! What a process under load uses, as the kernel counts it.
//!
//! Owns: reading `/proc`. Does not own: when to look.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::report::Report;

/// The kernel tells CPU time in hundredths of a second (`USER_HZ`), whatever its own clock's rate.
const TICK: Duration = Duration::from_millis(10);

fn read(pid: u32, file: &str) -> Result<(String, String), String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path)
        .map(|text| (path.clone(), text))
        .map_err(|error| format!("{path}: {error}"))
}

/// Resident anonymous memory of a process, in bytes: what it allocated, without the files that it maps.
pub(crate) fn resident(pid: u32) -> Result<u64, String> {
    let (path, status) = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| format!("{path} has no RssAnon"))
}

/// Memory of a server before a load and with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pid: u32,
    before: u64,
}

impl Memory {
    /// Looks before the load.
    pub(crate) fn before(pid: Option<u32>) -> Result<Option<Self>, String> {
        pid.map(|pid| Ok(Self { pid, before: resident(pid)? })).transpose()
    }

    /// Looks with the load, and tells what each of `count` takes.
    pub(crate) fn report(self, count: usize, name: &str, report: &mut Report) -> Result<(), String> {
        let with = resident(self.pid)?;
        let each = with.saturating_sub(self.before) / u64::try_from(count.max(1)).unwrap_or(1);
        report.add("resident_bytes_before", self.before).add("resident_bytes_with", with);
        report.add(name, each);
        Ok(())
    }
}

/// Lets this process open as many files as it may.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is refused shows when there are too many.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// CPU time of all threads of a process since its start, in user and kernel mode.
pub(crate) fn cpu(pid: u32) -> Result<Duration, String> {
    let (path, stat) = read(pid, "stat")?;
    parse_cpu(&stat).ok_or_else(|| format!("{path} has no CPU times"))
}

/// Adds what CPU time was used, in all and by each of `count`.
pub(crate) fn add_cpu(report: &mut Report, of: &str, used: Duration, count: u64) {
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    report.add("cpu_seconds", hundredths(used.as_secs_f64()));
    if count > 0 {
        report.add(&format!("cpu_us_per_{of}"), hundredths(used.as_secs_f64() * 1e6 / count as f64));
    }
}

/// The program's name stands in parentheses and may hold anything; utime and stime are the 12th and 13th field behind it.
fn parse_cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()?.checked_add(ticks()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_the_name() {
        let stat = "77 (a) b 1) S 1 77 77 0 -1 4194560 10 0 0 0 250 31 9 9 20 0 8 0 100 1000 10";
        assert_eq!(parse_cpu(stat), Some(Duration::from_millis(2_810)));
        assert_eq!(parse_cpu("77 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_memory_and_used_time() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 0);
        cpu(pid).unwrap();
        assert!(resident(u32::MAX).unwrap_err().contains("/proc/4294967295/status"));
    }
}
