//! Bridge and veth pairs, through rtnetlink(7).

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
};

use super::addresses::{self, Addresses};
use super::{BRIDGE, NetworkError, has_ipv6, namespace};

/// A sandbox's only link besides loopback.
const SANDBOX_LINK: &str = "eth0";

/// The bridge with its addresses, and loopback; returns its index.
pub(super) async fn make_bridge(handle: &Handle) -> Result<u32, NetworkError> {
    namespace::set_defaults();
    if let Some(index) = index_of(handle, BRIDGE).await {
        return Ok(index);
    }
    let bridge = LinkBridge::new(BRIDGE)
        .address(addresses::hardware(addresses::GATEWAY_IPV4))
        .build();
    let failed = NetworkError::netlink("making the bridge weft0");
    handle.link().add(bridge).execute().await.map_err(failed)?;
    set_up_by_name(handle, "lo").await?;
    let index = index_of(handle, BRIDGE).await.ok_or(NetworkError::Thread)?;
    add_address(
        handle,
        index,
        addresses::GATEWAY_IPV4.into(),
        addresses::PREFIX_IPV4,
    )
    .await?;
    add_address(
        handle,
        index,
        addresses::GATEWAY_IPV6.into(),
        addresses::PREFIX_IPV6,
    )
    .await?;
    Ok(index)
}

/// Some pair, in the current namespace.
pub(super) async fn make_pair(handle: &Handle) -> Result<(), NetworkError> {
    let pair = LinkVeth::new("probe-a", "probe-b").build();
    let failed = NetworkError::netlink("making a veth pair");
    handle.link().add(pair).execute().await.map_err(failed)
}

/// A veth pair from the bridge into a namespace, with addresses and default routes there.
pub(super) async fn connect(
    handle: &Handle,
    bridge: u32,
    addresses: Addresses,
    namespace: &Path,
) -> Result<(), NetworkError> {
    let file =
        File::open(namespace).map_err(NetworkError::system("opening the sandbox's network"))?;
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(SANDBOX_LINK.to_owned())
        .address(addresses.hardware())
        .append_extra_attribute(LinkAttribute::NetNsFd(file.as_raw_fd()))
        .build();
    let pair = LinkVeth::new(&addresses.link(), SANDBOX_LINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(bridge)
        .up()
        .build();
    let failed = NetworkError::netlink("making the sandbox's link");
    handle.link().add(pair).execute().await.map_err(failed)?;
    namespace::enter_and_await(namespace, move || async move {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(NetworkError::system("opening a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let configured = configure(&handle, addresses).await;
        connection.abort();
        configured
    })
    .await
}

/// Removes the pair; both ends go together.
pub(super) async fn disconnect(handle: &Handle, addresses: Addresses) {
    if let Some(index) = index_of(handle, &addresses.link()).await {
        // It goes with its namespace anyway.
        let _ = handle.link().del(index).execute().await;
    }
}

/// Inside the sandbox.
async fn configure(handle: &Handle, addresses: Addresses) -> Result<(), NetworkError> {
    let index = index_of(handle, SANDBOX_LINK)
        .await
        .ok_or(NetworkError::Thread)?;
    add_address(
        handle,
        index,
        addresses.ipv4().into(),
        addresses::PREFIX_IPV4,
    )
    .await?;
    add_address(
        handle,
        index,
        addresses.ipv6().into(),
        addresses::PREFIX_IPV6,
    )
    .await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    let failed = NetworkError::netlink("setting the sandbox's link up");
    handle.link().set(up).execute().await.map_err(failed)?;

    let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(addresses::GATEWAY_IPV4);
    let failed = NetworkError::netlink("adding the default route");
    handle
        .route()
        .add(route.build())
        .execute()
        .await
        .map_err(failed)?;
    if !has_ipv6() {
        return Ok(());
    }
    let route = RouteMessageBuilder::<std::net::Ipv6Addr>::new()
        .gateway(addresses::GATEWAY_IPV6)
        .output_interface(index);
    let failed = NetworkError::netlink("adding the default route for IPv6");
    handle
        .route()
        .add(route.build())
        .execute()
        .await
        .map_err(failed)
}

/// Loopback of a new namespace, with the extra source address of sidecars.
pub(super) async fn set_up_loopback(handle: &Handle) -> Result<(), NetworkError> {
    set_up_by_name(handle, "lo").await?;
    let index = index_of(handle, "lo").await.ok_or(NetworkError::Thread)?;
    add_address(
        handle,
        index,
        weft_proto::names::INBOUND_SOURCE_IPV6.into(),
        128,
    )
    .await
}

async fn set_up_by_name(handle: &Handle, name: &str) -> Result<(), NetworkError> {
    let up = LinkUnspec::new_with_name(name).up().build();
    let failed = NetworkError::netlink("setting a link up");
    handle.link().set(up).execute().await.map_err(failed)
}

/// Without duplicate address detection: nobody else gives addresses here, and it takes a second.
async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), NetworkError> {
    if address.is_ipv6() && !has_ipv6() {
        return Ok(());
    }
    let mut request = handle.address().add(index, address, prefix);
    if address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request
        .execute()
        .await
        .map_err(NetworkError::netlink("adding an address"))
}

async fn index_of(handle: &Handle, name: &str) -> Option<u32> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links
        .try_next()
        .await
        .ok()
        .flatten()
        .map(|link| link.header.index)
}
