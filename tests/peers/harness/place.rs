//! Loopback addresses that nobody else uses, so that every server and proxy can have the same ports.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// The next address: the process id tells test processes apart, a number those within one. The conformance cases
/// stay below 127.216.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert_ne!(number, 0, "no more than 255 addresses are used");
    let part = |value: u32| u8::try_from(value).expect("small");
    Ipv4Addr::new(
        127,
        part(216 + process / 250 % 38),
        part(process % 250),
        number,
    )
}
