//! What a starting process tells whoever started it: one datagram per message on a socket that a successful
//! execve(2) closes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

/// No message is larger.
const MAX_BYTES: usize = 16 * 1024;

/// What happened while a process was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It exists, with this pid as its starter sees it; the command itself is yet to come.
    Born { pid: i32 },
    /// The terminal's other end is attached.
    Terminal,
    /// It will not run. 127: no such command; 126: it cannot be executed; 125: the container cannot be made.
    Failed { exit_code: i32, reason: String },
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Reports(OwnedFd);

impl Reports {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// For the starter, and to become the standard input of what is started.
    pub(crate) fn pair() -> io::Result<(Reports, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Reports(ours), theirs))
    }

    /// Takes the socket that is this process's standard input, and leaves /dev/null in its place.
    pub(crate) fn from_stdin() -> io::Result<Reports> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?.as_fd())?;
        Ok(Reports(socket))
    }

    pub(crate) fn send(
        &self,
        report: &Report,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut body = serde_json::to_vec(report)?;
        body.truncate(MAX_BYTES);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(&body)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Waits for the next message; `None` when the command runs (or all who could report have ended).
    pub(crate) fn receive(&self) -> io::Result<Option<(Report, Option<OwnedFd>)>> {
        let mut body = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let result = rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut body)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            );
            match result {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let report = serde_json::from_slice(&body[..received.bytes])?;
        Ok(Some((report, descriptor)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_end_when_the_reporter_is_gone() {
        let (ours, theirs) = Reports::pair().expect("pair");
        let theirs = Reports(theirs);
        theirs.send(&Report::Born { pid: 7 }, None).expect("send");
        drop(theirs);

        let first = ours.receive().expect("receive").expect("a report").0;

        assert_eq!(first, Report::Born { pid: 7 });
        assert!(ours.receive().expect("receive").is_none());
    }
}
