//! The guard: a process that outlives the master by a moment, and ends what the master has left.
//!
//! Shape: it reads group numbers (`+` to remember, `-` to forget, as i32) until the master's end of the pipe closes; then TERM and soon KILL to the groups
//!        still remembered and to every process that carries a mark of the master ([`super::kin`]). A death signal reaches only leaders; this reaches everybody.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, RawDir};

use super::kin::Marks;

/// How many groups the guard can remember.
const GROUPS: usize = 4096;
/// From the master's death to KILL; nothing may be left after 2 s.
const GRACE_STEPS: u32 = 14;

/// The guard as the master knows it.
pub struct Guard {
    pub pid: Pid,
    pipe: File,
}

impl Guard {
    /// Forks it.
    pub fn start(marks: Marks) -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let pid = fork(OwnedFd::from(read), marks)?;
        let pipe = File::from(OwnedFd::from(write));
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        Ok(Self { pid, pipe })
    }

    /// That of the binary before.
    #[must_use]
    pub fn adopt(pid: Pid, pipe: OwnedFd) -> Self {
        Self { pid, pipe: File::from(pipe) }
    }

    #[must_use]
    pub fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// `+`: a group to end with us, `-`: one that is gone.
    pub fn watch(&mut self, group: i32) {
        // A full pipe or a dead guard: the death signal still reaches the leaders.
        let _ = self.pipe.write_all(&group.to_ne_bytes());
    }
}

fn fork(pipe: OwnedFd, marks: Marks) -> io::Result<Pid> {
    // SAFETY: the child only calls `guard`, which makes system calls, allocates nothing, takes no lock and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => guard(pipe.as_raw_fd(), marks),
        pid => Ok(Pid::from_raw(pid)),
    }
}

fn guard(pipe: RawFd, marks: Marks) -> ! {
    let mut groups = [0i32; GROUPS];
    // SAFETY: system calls on numbers and on arrays of this stack frame. We are alone in a freshly forked process: its descriptors are ours to
    // close, `pipe` is moved to 0 first. Nothing of Rust's is dropped: the process ends by _exit.
    unsafe {
        libc::setsid();
        libc::dup2(pipe, 0);
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"gateway-guard".as_ptr());
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    let known = listen(&mut groups);
    let groups = groups.get(..known).unwrap_or_default();
    end(groups, marks, libc::SIGTERM);
    for _ in 0..GRACE_STEPS {
        if !end(groups, marks, 0) {
            break;
        }
        // SAFETY: waits, on nothing.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 100) };
    }
    // The second time for what was forked during the first.
    end(groups, marks, libc::SIGKILL);
    end(groups, marks, libc::SIGKILL);
    // SAFETY: ends this process and runs nothing else.
    unsafe { libc::_exit(0) }
}

/// Until the master's end of the pipe closes; gives how many groups are remembered.
fn listen(groups: &mut [i32; GROUPS]) -> usize {
    let mut known = 0;
    let mut buffer = [0i32; 256];
    loop {
        // SAFETY: reads into an array of this frame.
        let bytes = unsafe { libc::read(0, buffer.as_mut_ptr().cast(), size_of_val(&buffer)) };
        // SAFETY: the address of this thread's errno is valid for its life.
        if bytes < 0 && unsafe { *libc::__errno_location() } == libc::EINTR {
            continue;
        }
        if bytes <= 0 {
            return known;
        }
        // Every write is one number, so every read is whole numbers.
        for word in buffer.iter().take(bytes.cast_unsigned() / 4) {
            if *word > 1 && known < GROUPS {
                groups[known] = *word;
                known += 1;
            } else if let Some(at) = groups.iter().take(known).position(|group| *group == -*word) {
                known -= 1;
                groups[at] = groups[known];
            }
        }
    }
}

/// A signal to all of them; 0 only asks. Gives whether anybody is left.
fn end(groups: &[i32], marks: Marks, signal: i32) -> bool {
    let mut left = false;
    for group in groups {
        // SAFETY: a number that the master gave; it is not 0 or 1, so it means one group.
        left |= unsafe { libc::kill(-*group, signal) } == 0;
    }
    marked(marks, |pid| {
        // SAFETY: a number from /proc. Between the look and the signal the process may end; that its number is taken within that moment is out of reach.
        left |= unsafe { libc::kill(pid, signal) } == 0;
    });
    left
}

/// Every process that carries a mark of the master. Allocates nothing.
fn marked(marks: Marks, mut each: impl FnMut(i32)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(proc) = rustix::fs::open(c"/proc", flags, Mode::empty()) else { return };
    let mut names = [MaybeUninit::<u8>::uninit(); 8192];
    let mut limits = [0u8; 4096];
    let mut dir = RawDir::new(&proc, &mut names);
    while let Some(Ok(entry)) = dir.next() {
        let Some(pid) = number(entry.file_name()) else { continue };
        let Ok(home) = rustix::fs::openat(&proc, entry.file_name(), flags, Mode::empty()) else { continue };
        let Ok(file) = rustix::fs::openat(&home, c"limits", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { continue };
        let Ok(bytes) = rustix::io::read(&file, &mut limits) else { continue };
        if limits.get(..bytes).is_some_and(|text| marks.read(text).is_some()) {
            each(pid);
        }
    }
}

fn number(name: &CStr) -> Option<i32> {
    name.to_bytes().iter().try_fold(0i32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i32::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}
