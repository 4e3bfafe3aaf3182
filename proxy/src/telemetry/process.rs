//! What the kernel says of this process: memory, descriptors, processor time, age.
//!
//! Read from /proc at scrape time, under the names every Prometheus client library uses.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::exposition::{Exposition, Kind};
use super::registry::Registry;

/// A reading of /proc/self.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Resident memory that belongs to this process alone: neither files nor shared.
    pub anonymous_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_descriptors: u64,
    /// How many may be open.
    pub max_descriptors: u64,
    /// Processor time in user and kernel mode.
    pub cpu: Duration,
}

impl Usage {
    /// Reads it now; what the kernel doesn't tell is zero.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            resident_bytes: kibibytes(&status, "VmRSS:"),
            anonymous_bytes: kibibytes(&status, "RssAnon:"),
            virtual_bytes: kibibytes(&status, "VmSize:"),
            threads: field(&status, "Threads:"),
            open_descriptors: descriptors as u64,
            max_descriptors: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(u64::MAX),
            cpu: cpu_time(&stat),
        }
    }
}

/// Adds the process's metrics to the registry. `started` is when the process began.
pub fn register(registry: &Registry, started: SystemTime) {
    registry.collector("process", move |exposition| {
        collect(&Usage::read(), started, exposition);
    });
}

fn collect(usage: &Usage, started: SystemTime, exposition: &mut Exposition) {
    let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            usage.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            usage.virtual_bytes,
        ),
        (
            "process_open_fds",
            "Number of open file descriptors.",
            usage.open_descriptors,
        ),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            usage.max_descriptors,
        ),
        ("process_threads", "Number of threads.", usage.threads),
    ];
    exposition.family(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        Kind::Counter,
    );
    exposition.sample("process_cpu_seconds_total", &[], usage.cpu.as_secs_f64());
    for (name, help, value) in gauges {
        exposition.family(name, help, Kind::Gauge);
        exposition.sample(name, &[], value);
    }
    exposition.family(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        Kind::Gauge,
    );
    exposition.sample("process_start_time_seconds", &[], started.as_secs_f64());
}

fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn kibibytes(status: &str, name: &str) -> u64 {
    field(status, name).saturating_mul(1024)
}

/// `USER_HZ`, fixed by the kernel's interface on x86-64 and arm64 (time(7)).
const TICKS_PER_SECOND: u64 = 100;

/// Fields 14 and 15 of proc_pid_stat(5), in clock ticks. The second field may hold spaces, so counting starts
/// after its closing parenthesis.
fn cpu_time(stat: &str) -> Duration {
    let ticks: u64 = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2))
        .into_iter()
        .flatten()
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks.saturating_mul(1000) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0";

        assert_eq!(cpu_time(stat), Duration::from_secs(2));
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let usage = Usage::read();

        assert!(usage.resident_bytes > 1 << 20);
        assert!(usage.open_descriptors >= 3);
        assert!(usage.threads >= 1);
    }

    #[test]
    fn a_missing_proc_reads_as_zero() {
        assert_eq!(cpu_time(""), Duration::ZERO);
        assert_eq!(kibibytes("garbage", "VmRSS:"), 0);
    }
}
