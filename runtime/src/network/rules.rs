//! Firewall rules of a sandbox, through iptables-restore and ip6tables-restore.
//!
//! Each family is replaced in one step. Tables that earlier rules used and new ones do not mention are emptied in
//! the same step, so what is in force is what was given last.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{NetworkError, has_ipv6, namespace};

/// How long a restore may take; usually it is a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
const MAX_RULES_BYTES: usize = 1024 * 1024;
const MAX_ERROR_BYTES: u64 = 4096;

/// Why rules are not in force. The former ones are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    #[error("{program} is not installed: install the package `iptables`")]
    NotInstalled { program: &'static str },
    #[error("{program} refused the rules: {stderr}")]
    Refused {
        program: &'static str,
        stderr: String,
    },
    #[error("{program} did not end within {} seconds", DEADLINE.as_secs())]
    Deadline { program: &'static str },
    #[error("rules of more than a mebibyte")]
    TooLarge,
    #[error("table {0} does not exist")]
    UnknownTable(String),
    #[error("running {program}")]
    Run {
        program: &'static str,
        source: io::Error,
    },
}

/// Input of iptables-restore for each family; empty: none.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleSet {
    pub(crate) ipv4: String,
    pub(crate) ipv6: String,
}

/// Which tables rules were applied to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tables {
    ipv4: BTreeSet<String>,
    ipv6: BTreeSet<String>,
}

/// Replaces the rules of a namespace; returns the tables that have some now.
pub(crate) async fn apply(
    namespace: &Path,
    rules: RuleSet,
    before: Tables,
) -> Result<Tables, NetworkError> {
    let ipv6 = if has_ipv6() {
        rules.ipv6
    } else {
        String::new()
    };
    let restore = |program: &'static str, rules: String, before: BTreeSet<String>| {
        namespace::enter(namespace, move || Ok(replace(program, &rules, &before)?))
    };
    let (ipv4, ipv6) = tokio::join!(
        restore("iptables-restore", rules.ipv4, before.ipv4),
        restore("ip6tables-restore", ipv6, before.ipv6),
    );
    Ok(Tables {
        ipv4: ipv4?,
        ipv6: ipv6?,
    })
}

/// In the calling thread's namespace.
fn replace(
    program: &'static str,
    rules: &str,
    before: &BTreeSet<String>,
) -> Result<BTreeSet<String>, RulesError> {
    let tables = tables_of(rules)?;
    let mut input = rules.to_owned();
    if !input.is_empty() && !input.ends_with('\n') {
        input.push('\n');
    }
    for table in before.difference(&tables) {
        input.push_str(&emptied(table)?);
    }
    if !input.is_empty() {
        restore(program, &input)?;
    }
    Ok(tables)
}

/// The tables that a text for iptables-restore replaces.
fn tables_of(rules: &str) -> Result<BTreeSet<String>, RulesError> {
    if rules.len() > MAX_RULES_BYTES {
        return Err(RulesError::TooLarge);
    }
    let tables: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix('*'))
        .map(str::to_owned)
        .collect();
    tables
        .iter()
        .try_for_each(|table| chains_of(table).map(|_| ()))?;
    Ok(tables)
}

fn chains_of(table: &str) -> Result<&'static [&'static str], RulesError> {
    match table {
        "filter" | "security" => Ok(&["INPUT", "FORWARD", "OUTPUT"]),
        "nat" => Ok(&["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
        "mangle" => Ok(&["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
        "raw" => Ok(&["PREROUTING", "OUTPUT"]),
        _ => Err(RulesError::UnknownTable(table.to_owned())),
    }
}

fn emptied(table: &str) -> Result<String, RulesError> {
    let chains = chains_of(table)?
        .iter()
        .map(|chain| format!(":{chain} ACCEPT [0:0]\n"));
    Ok(format!("*{table}\n{}COMMIT\n", chains.collect::<String>()))
}

/// Runs a restore in the calling thread's namespace.
pub(crate) fn restore(program: &'static str, input: &str) -> Result<(), RulesError> {
    let path = find(program).ok_or(RulesError::NotInstalled { program })?;
    let failed = |source| RulesError::Run { program, source };
    let mut child = Command::new(path)
        .args(["-w", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may end at the first bad line, and says why on its error stream.
        let _ = stdin.write_all(input.as_bytes());
    }
    let status = wait(&mut child, program)?;
    if status.success() {
        return Ok(());
    }
    let mut stderr = String::new();
    if let Some(stream) = child.stderr.take() {
        let _ = stream.take(MAX_ERROR_BYTES).read_to_string(&mut stderr);
    }
    Err(RulesError::Refused {
        program,
        stderr: stderr.trim().to_owned(),
    })
}

fn wait(child: &mut Child, program: &'static str) -> Result<std::process::ExitStatus, RulesError> {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_micros(200);
    loop {
        let failed = |source| RulesError::Run { program, source };
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(RulesError::Deadline { program });
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// An executable of PATH, or of the system directories that ordinary users have not in theirs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"].map(OsString::from);
    std::env::split_paths(&path)
        .chain(system.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|path| {
            path.metadata()
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_no_longer_mentioned_is_emptied() {
        let text = emptied("nat").expect("a table");

        assert_eq!(
            text,
            "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n"
        );
    }

    #[test]
    fn tables_are_read_from_the_rules() {
        let rules = "*nat\n-A OUTPUT -j RETURN\nCOMMIT\n # *raw\n*filter\nCOMMIT";

        let tables = tables_of(rules).expect("tables");

        assert_eq!(
            tables.into_iter().collect::<Vec<_>>(),
            vec!["filter", "nat"]
        );
    }

    #[test]
    fn a_table_that_does_not_exist_is_named() {
        let error = tables_of("*gnat\nCOMMIT\n").expect_err("no such table");

        assert!(error.to_string().contains("gnat"));
    }

    #[test]
    fn a_refusal_carries_what_the_program_said() {
        let error = RulesError::Refused {
            program: "iptables-restore",
            stderr: "line 2 failed".to_owned(),
        };

        assert_eq!(
            error.to_string(),
            "iptables-restore refused the rules: line 2 failed"
        );
    }
}
