//! HTTP/2 as both sides speak it, straight on the library's streams: bodies out of them and into them, and whether a peer is
//! still there.
//!
//! [`upstream`](crate::upstream) sends requests with it, [`http`](crate::http) responses.

pub mod keepalive;
pub mod receiving;
pub mod sending;
pub mod shared;
