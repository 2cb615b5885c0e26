//! How the ends of a command's output come to its shim: two descriptors beside a single byte, which is also how a run
//! begins on a socket that may still hold orders of the run before. Starts nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Where a command writes.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// What came over the socket of a shim that rests.
#[derive(Debug)]
pub(super) enum Came {
    /// A run begins: its task follows.
    Run(Outlets),
    /// An order that its run did not live to hear.
    Late,
    /// The runner is gone, or needs this shim no longer.
    End,
}

/// Begins a run. The socket must be empty enough for one byte, which it is when the run before has ended.
pub(super) fn send(socket: impl AsFd, outlets: [BorrowedFd<'_>; 2]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&outlets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(b"b")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Takes what is there. The kernel ends a reading behind the byte that brings descriptors, so nothing of the task is lost.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Came> {
    let mut bytes = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let Some(mut descriptors) = descriptors.next() else {
        return Ok(if received.bytes == 0 {
            Came::End
        } else {
            Came::Late
        });
    };
    match (descriptors.next(), descriptors.next()) {
        (Some(stdout), Some(stderr)) => Ok(Came::Run(Outlets { stdout, stderr })),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_run_begins_behind_what_was_too_late_for_the_one_before() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        ours.write_all(b"t").expect("sent");
        assert!(matches!(receive(&theirs), Ok(Came::Late)));
        ours.write_all(b"r12345678").expect("sent");
        let (mut stdout, of_command) = io::pipe().expect("a pipe");
        let stderr = of_command.try_clone().expect("another");
        send(&ours, [of_command.as_fd(), stderr.as_fd()]).expect("sent");
        drop((of_command, stderr));
        ours.write_all(b"the task").expect("sent");
        let Ok(Came::Run(outlets)) = receive(&theirs) else {
            panic!("no run");
        };
        std::fs::File::from(outlets.stdout)
            .write_all(b"out")
            .expect("written");
        drop(outlets.stderr);
        let mut said = String::new();
        stdout.read_to_string(&mut said).expect("read");
        assert_eq!(said, "out");
        drop(ours);
        let mut task = String::new();
        theirs.read_to_string(&mut task).expect("read");
        assert_eq!(task, "the task");
        assert!(matches!(receive(&theirs), Ok(Came::End)));
    }
}
