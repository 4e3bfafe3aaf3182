//! A terminal of the container's own /dev/pts, its other end handed to whoever started us.

use std::io;
use std::os::fd::AsFd as _;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use super::InitError;
use crate::container::report::{Report, Reports};

/// Makes a new terminal this process's controlling terminal and its three standard streams.
pub(crate) fn take(reports: &Reports) -> Result<(), InitError> {
    let take = || -> io::Result<()> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let other_end = openpt(flags)?;
        unlockpt(&other_end)?;
        let terminal = ioctl_tiocgptpeer(&other_end, flags)?;
        reports.send(&Report::Terminal, Some(other_end.as_fd()))?;
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(&terminal)?;
        rustix::stdio::dup2_stdin(&terminal)?;
        rustix::stdio::dup2_stdout(&terminal)?;
        rustix::stdio::dup2_stderr(&terminal)?;
        Ok(())
    };
    take().map_err(InitError::system("making a terminal"))
}
