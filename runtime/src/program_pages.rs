//! Which pages of the program's own file are mapped, and how they are given up when nobody needs them any more.
//!
//! A program that has started keeps the code mapped that only its start needed: the kernel takes it back when memory is
//! short, and until then it counts as resident. [`release`] takes all of it out of the process. What is still needed is
//! mapped again when it is next used, from the file that is in the kernel's cache, some pages at a time.

use std::path::Path;
use std::{fs, io};

use crate::sys;

/// A mapping of the program's own file with not one page that the process has changed.
///
/// The program's file is mapped as long as the process lives, and nobody can write to it meanwhile. So what is read after the
/// pages were given up is what was there before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CleanMapping {
    start: usize,
    length: usize,
    resident_kib: u64,
}

impl CleanMapping {
    /// Where it begins.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// How many bytes it has.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

/// Gives up the program's pages that the process has not changed; what is not possible is left out.
///
/// Constants with addresses in them were changed when the program was loaded, and code is changed by a debugger that waits in
/// it: a mapping with one such page is left alone.
pub fn release() {
    for mapping in own().unwrap_or_default() {
        // It stays mapped where the kernel refuses, as for a process whose memory is locked.
        let _ = sys::give_up_pages(&mapping);
    }
}

fn own() -> io::Result<Vec<CleanMapping>> {
    let program = fs::read_link("/proc/self/exe")?;
    Ok(clean(&fs::read_to_string("/proc/self/smaps")?, &program))
}

/// The clean mappings of a file, by what the kernel tells of all mappings (see proc_pid_smaps(5)).
fn clean(smaps: &str, program: &Path) -> Vec<CleanMapping> {
    let mut found = Vec::new();
    let mut lines = smaps.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((start, end)) = unchangeable(line, program) else {
            continue;
        };
        let (mut changed_kib, mut resident_kib) = (None, 0);
        while let Some((key, kib)) = lines.peek().and_then(|line| figure(line)) {
            match key {
                "Anonymous" => changed_kib = kib,
                "Rss" => resident_kib = kib.unwrap_or_default(),
                _ => {}
            }
            lines.next();
        }
        if changed_kib == Some(0) {
            found.push(CleanMapping {
                start,
                length: end - start,
                resident_kib,
            });
        }
    }
    found
}

/// From where to where it is, if this is the first line of a private mapping of the file that nobody can write to.
fn unchangeable(line: &str, program: &Path) -> Option<(usize, usize)> {
    let mut words = line.splitn(6, ' ');
    let (range, permissions) = (words.next()?, words.next()?);
    let file = words.nth(3)?.trim_start();
    if !matches!(permissions, "r--p" | "r-xp") || Path::new(file) != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    (start < end).then_some((start, end))
}

/// `Rss:  12 kB` as its name and number; `None` for the first line of a mapping.
fn figure(line: &str) -> Option<(&str, Option<u64>)> {
    let (key, rest) = line.split_once(':')?;
    let is_key = key
        .bytes()
        .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let number = rest.trim().trim_end_matches(" kB").parse().ok();
    is_key.then_some((key, number))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 9                         /usr/bin/weft
Size:                  8 kB
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
3000-5000 r-xp 00001000 fe:00 9                         /usr/bin/weft
Rss:                   8 kB
Anonymous:             4 kB
5000-6000 r-xp 00003000 fe:00 9                         /usr/bin/weft
Rss:                   4 kB
Anonymous:             0 kB
6000-7000 rw-p 00004000 fe:00 9                         /usr/bin/weft
Anonymous:             0 kB
7000-8000 r--s 00004000 fe:00 9                         /usr/bin/weft
Anonymous:             0 kB
8000-9000 r-xp 00000000 fe:00 7                         /lib/libc.so.6
Anonymous:             0 kB
9000-a000 r--p 00000000 fe:00 9                         /usr/bin/weft
Rss:                   4 kB
a000-b000 rw-p 00000000 00:00 0
Anonymous:             4 kB
";

    #[test]
    fn only_what_the_program_cannot_write_and_did_not_change_is_clean() {
        let found = clean(SMAPS, Path::new("/usr/bin/weft"));

        let mapping = |start, length, resident_kib| CleanMapping {
            start,
            length,
            resident_kib,
        };
        assert_eq!(
            found,
            [mapping(0x1000, 0x2000, 4), mapping(0x5000, 0x1000, 4)]
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        for smaps in [
            "",
            "1000-",
            "x-y r-xp 0 0 9 /p",
            "3000-1000 r-xp 0 0 9 /p\nAnonymous: 0 kB\n",
        ] {
            assert_eq!(clean(smaps, Path::new("/p")), [], "{smaps}");
        }
    }

    fn resident_kib() -> u64 {
        let own = own().expect("proc is mounted");
        own.iter().map(|mapping| mapping.resident_kib).sum()
    }

    #[test]
    fn pages_are_given_up_while_threads_go_on() {
        let is_over = AtomicBool::new(false);
        let work = || {
            let mut sum = 0_usize;
            while !is_over.load(Ordering::Relaxed) {
                sum += format!("{:?}", std::env::args().collect::<Vec<_>>()).len();
            }
            sum
        };
        std::thread::scope(|scope| {
            let busy = [scope.spawn(work), scope.spawn(work)];
            let before = resident_kib();

            release();

            let after = resident_kib();
            is_over.store(true, Ordering::Relaxed);
            assert!(after < before, "{after} KiB of {before}");
            for thread in busy {
                assert!(thread.join().is_ok());
            }
        });
    }
}
