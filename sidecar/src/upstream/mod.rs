//! Connections to servers: opening them, driving them, keeping them for the next request.

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod pool;
pub(crate) mod proxy_header;
pub(crate) mod socket;
