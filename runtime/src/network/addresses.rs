//! Which address each sandbox has: 10.96.0.0/16 and fd57:6060::/64, numbered alike.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::NetworkError;

/// The gateway of every sandbox, and the mesh DNS.
pub(crate) const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The same for IPv6.
pub(crate) const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0x6060, 0, 0, 0, 0, 0, 1);
pub(crate) const PREFIX_IPV4: u8 = 16;
pub(crate) const PREFIX_IPV6: u8 = 64;

/// The gateway is 1; the last is the broadcast address.
const FIRST: u16 = 2;
const LAST: u16 = u16::MAX - 1;

/// The addresses of one sandbox: the network's, with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Addresses(u16);

impl Addresses {
    pub(crate) fn ipv4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 96, high, low)
    }

    pub(crate) fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd57, 0x6060, 0, 0, 0, 0, 0, self.0)
    }

    /// The hardware address of its link.
    pub(crate) fn hardware(self) -> Vec<u8> {
        hardware(self.ipv4())
    }

    /// Name of the link on the bridge.
    pub(crate) fn link(self) -> String {
        format!("weft-{}", self.0)
    }
}

/// The hardware address that belongs to an address, locally administered: what neighbours remember of an address stays
/// true whoever has it. A bridge without one of its own takes that of some port, and another when ports come and go.
pub(crate) fn hardware(address: Ipv4Addr) -> Vec<u8> {
    [&[0x0a, 0x58], &address.octets()[..]].concat()
}

/// Numbers in use. The next one given is the one after the last given, so that a number rests for as long as
/// possible: neighbours and connections of its former owner die out.
#[derive(Debug, Default)]
pub(crate) struct AddressPool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: BTreeSet<Addresses>,
    last: u16,
}

impl AddressPool {
    pub(crate) fn allocate(&self) -> Result<Addresses, NetworkError> {
        let mut state = self.state.lock();
        let start = if (FIRST..LAST).contains(&state.last) {
            state.last + 1
        } else {
            FIRST
        };
        let free = (start..=LAST)
            .chain(FIRST..start)
            .map(Addresses)
            .find(|addresses| !state.used.contains(addresses))
            .ok_or(NetworkError::NoAddress)?;
        state.used.insert(free);
        state.last = free.0;
        Ok(free)
    }

    /// Notes what is in use already.
    pub(crate) fn claim(&self, addresses: Addresses) {
        let mut state = self.state.lock();
        state.used.insert(addresses);
        state.last = state.last.max(addresses.0);
    }

    pub(crate) fn release(&self, addresses: Addresses) {
        self.state.lock().used.remove(&addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_carry_the_same_number() {
        let addresses = Addresses(0x0102);

        assert_eq!(addresses.ipv4().to_string(), "10.96.1.2");
        assert_eq!(addresses.ipv6().to_string(), "fd57:6060::102");
    }

    #[test]
    fn a_released_address_rests_before_it_is_given_again() {
        let pool = AddressPool::default();
        let first = pool.allocate().expect("an address");
        pool.release(first);

        let second = pool.allocate().expect("an address");

        assert_eq!(
            (first.ipv4().octets(), second.ipv4().octets()),
            ([10, 96, 0, 2], [10, 96, 0, 3])
        );
    }

    #[test]
    fn an_adopted_address_is_not_given_twice() {
        let pool = AddressPool::default();
        pool.claim(Addresses(3));

        let given: Vec<Addresses> = (0..3)
            .map(|_| pool.allocate().expect("an address"))
            .collect();

        assert!(!given.contains(&Addresses(3)), "{given:?}");
    }

    #[test]
    fn a_full_network_says_so_and_a_freed_address_is_found() {
        let pool = AddressPool::default();
        while pool.allocate().is_ok() {}
        assert!(matches!(pool.allocate(), Err(NetworkError::NoAddress)));

        pool.release(Addresses(77));

        assert_eq!(pool.allocate().expect("the free one"), Addresses(77));
    }
}
