//! The last steps before a container's command runs: who it is, what it may do, and execve(2).
//!
//! Shared by first processes and by commands that are executed beside them.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, execve, fchown, setgroups, setresgid, setresuid};

use super::users::{self, Identity};
use super::{InitError, capabilities, seccomp};
use crate::container::bundle::Process;
use crate::sys;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As many open files as other runtimes allow, where the hard limit does.
const OPEN_FILES: u64 = 1024 * 1024;

/// Becomes the command. The root filesystem is the container's by now.
pub(crate) fn run(process: &Process, hostname: &str) -> Result<Infallible, InitError> {
    let identity = users::resolve(&process.user)?;
    let environment = environment(process, &identity, hostname);
    enter_directory(&process.working_directory)?;
    own_streams(&identity);
    // A lower limit than others have is no reason not to start.
    let _ = raise_open_files();
    let system = |doing: &'static str| InitError::system(doing);
    sys::close_on_exec_from(3).map_err(system("closing descriptors"))?;
    become_user(process, &identity)?;
    sys::restore_broken_pipe_signal().map_err(system("restoring signals"))?;
    SigSet::empty()
        .thread_set_mask()
        .map_err(|errno| system("restoring signals")(errno.into()))?;
    // After the change of user, which clears it: without its shim a container has nobody to answer to.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| system("binding to the shim")(errno.into()))?;
    nix::sys::prctl::set_no_new_privs()
        .map_err(|errno| system("giving up new privileges")(errno.into()))?;
    seccomp::install()?;
    execute(&process.command, &environment)
}

/// Later entries win; what nobody set has a default.
fn environment(process: &Process, identity: &Identity, hostname: &str) -> Vec<(String, String)> {
    let mut variables = vec![
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
        ("HOME".to_owned(), identity.home.clone()),
    ];
    if process.terminal {
        variables.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    for entry in &process.environment {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        match variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => value.clone_into(known),
            None => variables.push((name.to_owned(), value.to_owned())),
        }
    }
    variables
}

fn enter_directory(directory: &str) -> Result<(), InitError> {
    let directory = Path::new(if directory.is_empty() { "/" } else { directory });
    let doing = || InitError::system(format!("entering {}", directory.display()));
    if !directory.exists() {
        fs::create_dir_all(directory).map_err(doing())?;
    }
    std::env::set_current_dir(directory).map_err(doing())
}

/// /dev/stdout and its like can be opened again only by their owner.
fn own_streams(identity: &Identity) {
    if identity.uid == 0 {
        return;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let own = |stream: &dyn AsFd| {
        // Refused for what is not ours, such as /dev/null, which everybody may open anyway.
        let _ = fchown(stream.as_fd(), Some(uid), Some(gid));
    };
    own(&io::stdin());
    own(&io::stdout());
    own(&io::stderr());
}

fn raise_open_files() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard)
}

fn become_user(process: &Process, identity: &Identity) -> Result<(), InitError> {
    capabilities::bound(&process.capabilities)?;
    let switch = || -> nix::Result<()> {
        // Groups go before the user: after setresuid we may no longer.
        let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        let gid = Gid::from_raw(identity.gid);
        setresgid(gid, gid, gid)?;
        let uid = Uid::from_raw(identity.uid);
        setresuid(uid, uid, uid)
    };
    switch().map_err(|errno| {
        let doing = format!("becoming user {}:{}", identity.uid, identity.gid);
        InitError::system(doing)(errno.into())
    })?;
    capabilities::limit(&process.capabilities, identity.uid)
}

fn execute(command: &[String], environment: &[(String, String)]) -> Result<Infallible, InitError> {
    let Some(program) = command.first().filter(|program| !program.is_empty()) else {
        return Err(InitError::NoCommand);
    };
    let to_c = |text: &str| {
        CString::new(text).map_err(|_| InitError::CannotExecute {
            command: program.clone(),
            source: io::Error::new(
                io::ErrorKind::InvalidInput,
                "a NUL byte in arguments or environment",
            ),
        })
    };
    let arguments = command
        .iter()
        .map(|text| to_c(text))
        .collect::<Result<Vec<_>, _>>()?;
    let variables = environment
        .iter()
        .map(|(name, value)| to_c(&format!("{name}={value}")))
        .collect::<Result<Vec<_>, _>>()?;
    let path = environment.iter().find(|(name, _)| name == "PATH");
    let candidates = candidates(program, path.map_or(DEFAULT_PATH, |(_, value)| value));

    // As execvp(3): one that may not be executed is remembered while others are tried.
    let mut refusal = None;
    for candidate in &candidates {
        let errno = match execve(&to_c(candidate)?, &arguments, &variables) {
            Ok(never) => match never {},
            Err(errno) => errno,
        };
        let is_missing = matches!(errno, Errno::ENOENT | Errno::ENOTDIR);
        // A script whose interpreter is missing is there, though the kernel says ENOENT.
        if !is_missing || (candidates.len() == 1 && Path::new(candidate).exists()) {
            refusal = Some((candidate.clone(), errno));
            if errno != Errno::EACCES {
                break;
            }
        }
    }
    Err(match refusal {
        Some((command, errno)) => InitError::CannotExecute {
            command,
            source: errno.into(),
        },
        None => InitError::NotFound {
            command: program.clone(),
        },
    })
}

/// Where a command may be: itself if it has a slash, else in each directory of PATH.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let directories = path
        .split(':')
        .map(|directory| if directory.is_empty() { "." } else { directory });
    directories
        .map(|directory| format!("{directory}/{program}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            uid: 0,
            gid: 0,
            groups: vec![],
            home: "/root".into(),
        }
    }

    #[test]
    fn a_later_variable_replaces_an_earlier_one() {
        let process = Process {
            environment: vec!["A=1".into(), "PATH=/x".into(), "A=2".into()],
            ..Process::default()
        };

        let variables = environment(&process, &identity(), "pod");

        let value = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(
            (value("A"), value("PATH"), value("HOME")),
            (Some("2"), Some("/x"), Some("/root"))
        );
        assert_eq!(variables.iter().filter(|(name, _)| name == "A").count(), 1);
    }

    #[test]
    fn a_command_with_a_slash_is_not_searched_for() {
        assert_eq!(candidates("./run", "/bin"), vec!["./run"]);
        assert_eq!(
            candidates("sh", "/bin::/usr/bin"),
            vec!["/bin/sh", "./sh", "/usr/bin/sh"]
        );
    }
}
