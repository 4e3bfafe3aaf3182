//! HTTP/1.1 as both sides speak it: how bodies are framed and taken apart, what is taken of a head, and how messages are
//! read from a connection and written to it.
//!
//! [`upstream`](crate::upstream) reads responses with it and writes requests, [`http`](crate::http) the other way round.

pub(crate) mod chunked;
pub(crate) mod decoder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod head;
pub mod malformed;
pub(crate) mod maps;
pub(crate) mod names;
pub(crate) mod plenty;
pub(crate) mod reading;
pub(crate) mod sending;
pub(crate) mod text;
