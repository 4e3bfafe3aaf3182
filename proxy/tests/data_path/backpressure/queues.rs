//! What the kernel holds of connections.

/// Bytes in the queues of all sockets with one of these ports on either side, as proc_pid_net(5) shows them.
pub(super) fn queued(ports: &[u16]) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let lines = table.lines().skip(1);
    lines.filter_map(|line| of_socket(line, ports)).sum()
}

/// `sl: local remote state sending:receiving …`, all hexadecimal.
fn of_socket(line: &str, ports: &[u16]) -> Option<usize> {
    let mut fields = line.split_whitespace().skip(1);
    let mut port = || {
        let (_, port) = fields.next()?.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok()
    };
    let ends = [port()?, port()?];
    if !ends.iter().any(|port| ports.contains(port)) {
        return None;
    }
    let (sending, receiving) = fields.nth(1)?.split_once(':')?;
    let bytes = |digits| usize::from_str_radix(digits, 16).unwrap();
    Some(bytes(sending) + bytes(receiving))
}
