//! The terminal of a command, from the side of its client.

use std::io;
use std::os::fd::OwnedFd;

use rustix::termios::{Winsize, tcsetwinsize};
use weft_proto::weft::node::v1::TerminalSize;

use crate::container::report::{Report, Reports};

/// The terminal's other end, or why there is no command at it.
pub(super) fn open(reports: &Reports) -> io::Result<Result<OwnedFd, String>> {
    let mut terminal = None;
    while let Some((report, descriptor)) = reports.receive()? {
        match report {
            Report::Terminal => terminal = descriptor,
            Report::Failed { reason, .. } => return Ok(Err(reason)),
            Report::Born { .. } => {}
        }
        if terminal.is_some() {
            break;
        }
    }
    Ok(terminal.ok_or_else(|| "the container is gone".to_owned()))
}

pub(super) fn resize(terminal: &OwnedFd, size: Option<TerminalSize>) {
    if let Some(size) = size {
        let bounded = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: bounded(size.rows),
            ws_col: bounded(size.columns),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal that is gone has no size.
        let _ = tcsetwinsize(terminal, size);
    }
}
