//! Options of sockets, by number: setsockopt(2) for what has no name in any library.

use std::io;
use std::os::fd::AsFd;

use socket2::{SockRef, TcpKeepalive};

use crate::config::listener::socket::{Family, Keepalive, Moment, OptionValue, SocketOption};
use crate::sys;

/// Sets those that are for this moment and family.
pub(crate) fn set_all(
    socket: &impl AsFd,
    options: &[SocketOption],
    moment: Moment,
    family: Family,
) -> io::Result<()> {
    let applies = |option: &&SocketOption| {
        option.moment == moment && option.family.is_none_or(|of| of == family)
    };
    for option in options.iter().filter(applies) {
        let bytes = match &option.value {
            OptionValue::Number(number) => &number.to_ne_bytes()[..],
            OptionValue::Bytes(bytes) => bytes,
        };
        sys::set_option(socket, option.level, option.name, bytes).map_err(|error| {
            let (level, name) = (option.level, option.name);
            let reason = format!("setting option {name} of level {level}: {error}");
            io::Error::new(error.kind(), reason)
        })?;
    }
    Ok(())
}

/// Lets a socket be bound to an address that nobody has yet (ip(7)).
pub(crate) fn bind_freely(socket: &impl AsFd, family: Family) -> io::Result<()> {
    switch_on(socket, libc::SOL_IP, libc::IP_FREEBIND)?;
    match family {
        Family::V4 => Ok(()),
        Family::V6 => switch_on(socket, libc::SOL_IPV6, libc::IPV6_FREEBIND),
    }
}

/// Lets a socket take connections that are for others (ip(7)).
pub(crate) fn be_transparent(socket: &impl AsFd, family: Family) -> io::Result<()> {
    let switched = match family {
        Family::V4 => switch_on(socket, libc::SOL_IP, libc::IP_TRANSPARENT),
        Family::V6 => switch_on(socket, libc::SOL_IPV6, libc::IPV6_TRANSPARENT),
    };
    switched.map_err(|error| {
        let reason = format!("making it transparent, which needs CAP_NET_ADMIN: {error}");
        io::Error::new(error.kind(), reason)
    })
}

/// Lets the kernel ask whether the peer is still there; of a listening socket, of all that are accepted there.
pub(crate) fn keep_alive(socket: &impl AsFd, keepalive: Keepalive) -> io::Result<()> {
    let Keepalive {
        probes,
        idle,
        interval,
    } = keepalive;
    let mut wanted = TcpKeepalive::new();
    if let Some(probes) = probes {
        wanted = wanted.with_retries(probes);
    }
    if let Some(idle) = idle {
        wanted = wanted.with_time(idle);
    }
    if let Some(interval) = interval {
        wanted = wanted.with_interval(interval);
    }
    let socket = SockRef::from(socket);
    socket.set_keepalive(true)?;
    match (probes, idle, interval) {
        (None, None, None) => Ok(()),
        _ => socket.set_tcp_keepalive(&wanted),
    }
}

/// Lets the port of a socket that is bound without one be chosen when it is connected: then it has to differ only from
/// those of connections to the same place (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
pub(crate) fn choose_port_late(socket: &impl AsFd) -> io::Result<()> {
    switch_on(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Marks what a socket sends, for rules of routing (`SO_MARK`, socket(7)).
pub(crate) fn mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    sys::set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, &mark.to_ne_bytes())
}

fn switch_on(socket: &impl AsFd, level: i32, name: i32) -> io::Result<()> {
    sys::set_option(socket, level, name, &1_i32.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_kernel_asks_after_silent_peers_as_it_is_told() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let keepalive = Keepalive {
            probes: Some(3),
            idle: Some(Duration::from_secs(40)),
            interval: None,
        };

        keep_alive(&socket, keepalive).expect("set");

        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().expect("an option"));
        let idle = socket.tcp_keepalive_time().expect("an option");
        let probes = socket.tcp_keepalive_retries().expect("an option");
        assert_eq!((idle, probes), (Duration::from_secs(40), 3));
    }
}
