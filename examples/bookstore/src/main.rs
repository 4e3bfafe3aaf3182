//! The example bookstore.
fn main() {}
