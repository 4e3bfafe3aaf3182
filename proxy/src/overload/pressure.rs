//! How much of a resource is used: 0 is nothing, 1 all of it.

use std::io;
use std::path::{Path, PathBuf};

use super::Counted;
use crate::config::overload::{OverloadConfig, Resource};
use crate::telemetry::process::Usage;

/// Where the control group of the process tells about its memory: seen from within a container, at the root.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The pressure on each resource, in the order of the monitors; what cannot be read presses on nothing.
pub(super) fn all(config: &OverloadConfig, counters: &Counted) -> Vec<f64> {
    config
        .monitors
        .iter()
        .zip(&counters.monitors)
        .map(|(monitor, (pressure, failures))| {
            let read = of(&monitor.resource).unwrap_or_else(|error| {
                tracing::debug!(monitor = %monitor.name, %error, "resource not read");
                failures.increment();
                0.0
            });
            pressure.set(percent(read));
            read
        })
        .collect()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion from floats saturates"
)]
fn percent(pressure: f64) -> u64 {
    (pressure * 100.0) as u64
}

fn of(resource: &Resource) -> io::Result<f64> {
    match resource {
        Resource::Heap(limit) => Ok(share(Usage::read().anonymous_bytes, *limit)),
        Resource::ControlGroup(limit) => of_group(&own_group(), *limit),
        Resource::File(path) => {
            let text = std::fs::read_to_string(path)?;
            let number: f64 = text.trim().parse().map_err(io::Error::other)?;
            match (0.0..=1.0).contains(&number) {
                true => Ok(number),
                false => Err(io::Error::other("not between 0 and 1")),
            }
        }
    }
}

/// The memory of a control group (version 2) against its limit, or the one that is given where that is less.
fn of_group(folder: &Path, limit: u64) -> io::Result<f64> {
    let used = number(&folder.join("memory.current"))?;
    let own = number(&folder.join("memory.max")).unwrap_or(u64::MAX);
    let limit = match limit {
        0 => own,
        limit => limit.min(own),
    };
    Ok(share(used, limit))
}

fn number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(io::Error::other)
}

/// cgroups(7): `0::/path` is the group in the unified hierarchy.
fn own_group() -> PathBuf {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    Path::new(CONTROL_GROUPS).join(path.unwrap_or_default())
}

#[allow(clippy::cast_precision_loss, reason = "a share")]
fn share(used: u64, limit: u64) -> f64 {
    used as f64 / limit.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_is_measured_against_the_lower_of_its_limits() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        let pressure = |limit| of_group(folder.path(), limit).expect("read");
        write("memory.current", "500\n");
        write("memory.max", "1000\n");

        assert!((pressure(0) - 0.5).abs() < 1e-9);
        assert!((pressure(800) - 0.625).abs() < 1e-9);
        assert!((pressure(2000) - 0.5).abs() < 1e-9);
        write("memory.max", "max\n");
        assert!((pressure(800) - 0.625).abs() < 1e-9);
        assert!(pressure(0) < 1e-9);
    }

    #[test]
    fn what_a_file_says_is_taken_only_between_none_and_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pressure");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            of(&Resource::File(path.clone()))
        };

        assert!(read("0.75\n").is_ok_and(|pressure| (pressure - 0.75).abs() < 1e-9));
        for no_pressure in ["", "much", "1.5", "-1", "NaN"] {
            assert!(read(no_pressure).is_err(), "{no_pressure}");
        }
    }

    #[test]
    fn the_process_uses_some_memory() {
        let pressure = of(&Resource::Heap(1)).expect("read");

        assert!(pressure > 1.0);
    }
}
