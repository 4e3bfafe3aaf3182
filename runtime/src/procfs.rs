//! What /proc says of the processes of a container: their memory, and what their network listens on.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Memory of some processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident bytes; what processes share counts for each.
    pub(crate) resident_bytes: u64,
    /// Bytes that no other process shares.
    pub(crate) private_bytes: u64,
}

/// The processes of each pid namespace that we may look into.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    by_namespace: HashMap<u64, Vec<i32>>,
}

impl Processes {
    /// Walks /proc once.
    pub(crate) fn read() -> Processes {
        let mut by_namespace: HashMap<u64, Vec<i32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok());
            if let Some((pid, namespace)) = pid.and_then(|pid| Some((pid, pid_namespace(pid)?))) {
                by_namespace.entry(namespace).or_default().push(pid);
            }
        }
        Processes { by_namespace }
    }

    /// Memory of all processes that live in the pid namespace of this one.
    pub(crate) fn memory_beside(&self, pid: i32) -> Memory {
        let namespace = pid_namespace(pid);
        let pids = namespace.and_then(|namespace| self.by_namespace.get(&namespace));
        pids.into_iter()
            .flatten()
            .fold(Memory::default(), |sum, pid| {
                let memory = memory_of(*pid);
                Memory {
                    resident_bytes: sum.resident_bytes + memory.resident_bytes,
                    private_bytes: sum.private_bytes + memory.private_bytes,
                }
            })
    }
}

fn pid_namespace(pid: i32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/pid"))
        .ok()
        .map(|metadata| metadata.ino())
}

/// Whether a process runs; one that ended and was not waited for does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may contain anything, parentheses too; the state follows the last of them.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn memory_of(pid: i32) -> Memory {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .map(|text| parse_smaps(&text))
        .unwrap_or_default()
}

fn parse_smaps(text: &str) -> Memory {
    let kilobytes = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value
            .trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<u64>()
            .ok()
    };
    let bytes = |name| kilobytes(name).unwrap_or(0) * 1024;
    Memory {
        resident_bytes: bytes("Rss:"),
        private_bytes: bytes("Private_Clean:") + bytes("Private_Dirty:"),
    }
}

/// TCP ports on which somebody listens in the network namespace of a process, whatever the address.
pub(crate) fn listening_ports(pid: i32) -> Vec<u32> {
    let ports: BTreeSet<u32> = ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| {
            fs::read_to_string(
                Path::new("/proc")
                    .join(pid.to_string())
                    .join("net")
                    .join(table),
            )
            .ok()
        })
        .flat_map(|text| parse_listening(&text))
        .collect();
    ports.into_iter().collect()
}

/// From the table of proc_pid_net(5); state 0A is LISTEN.
fn parse_listening(table: &str) -> Vec<u32> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        let state = fields.nth(1)?;
        let port = u32::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (state == "0A").then_some(port)
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count_as_ports() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0
   2: 00000000:0050 00000000:0000 0A
";
        assert_eq!(parse_listening(table), vec![8080, 80]);
    }

    #[test]
    fn private_memory_is_clean_and_dirty() {
        let text = "Rss:                1024 kB\nPrivate_Clean:        16 kB\nPrivate_Dirty:        32 kB\n";

        let memory = parse_smaps(text);

        assert_eq!(memory.resident_bytes, 1024 * 1024);
        assert_eq!(memory.private_bytes, 48 * 1024);
    }

    #[test]
    fn tables_that_are_cut_short_are_read_as_far_as_they_go() {
        assert_eq!(
            parse_listening("header\n  0: 0100007F\n  1:"),
            Vec::<u32>::new()
        );
    }

    #[test]
    fn this_process_is_alive_and_none_has_pid_zero() {
        assert!(is_alive(std::process::id().cast_signed()));
        assert!(!is_alive(0));
    }
}
