//! What an operator changes at run time, as the filter reads it from shared data.
//!
//! ```text
//!   evenkeel/<pool>/members      1  version of this layout (2)     8  version of the content     2  servers
//!   then per server: 1  length of its id, the id     1  admin state     2  weight (0: as configured)     1  tier (0, 1: backup)
//!                    1  kind of address (0: as configured, 4, 6), its 0, 4 or 16 bytes, 2  port (unless 0)      (little-endian)
//! ```
//!
//! Whoever writes it raises the version of the content, and then tells it ([`super::News`]); the filter looks each tick whether that was
//! told, and rebuilds the pools whose version changed. Where nothing was ever told, it looks at the records themselves. The
//! record says how the pool differs from its configuration, and nothing else, so that it means the same to the configuration before a
//! reload and the one after it: a server that it does not name is as configured; one that only it names is added, if it has an
//! address, and passed over if it has none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::server_record::{self, array};
use crate::config::Tier;

const VERSION: u8 = 2;

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Changes with every change.
    pub version: u64,
    /// At most [`crate::config::SERVERS_MAX`].
    pub servers: Vec<Member>,
}

/// One server at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// `None`: as configured.
    pub address: Option<SocketAddr>,
    /// 1–65535; `None`: as configured, or 1.
    pub weight: Option<u16>,
    pub admin: AdminChange,
    /// Of a server that the configuration does not name.
    pub tier: Tier,
}

/// What an operator wants of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminChange {
    /// As configured.
    Ready,
    /// Nothing new; what is bound to it stays.
    Drain,
    /// Nothing at all.
    Maint,
    /// It is no server of the pool any more.
    Removed,
}

impl Members {
    /// The key of a pool's record.
    pub fn key(pool: &str) -> Vec<u8> {
        format!("evenkeel/{pool}/members").into_bytes()
    }

    /// The version in a record, without reading the rest.
    pub fn version_of(bytes: &[u8]) -> Option<u64> {
        server_record::version_of(VERSION, bytes)
    }

    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        server_record::encode(VERSION, self.version, &self.servers, write)
    }

    /// Reads a record; `None` if it is none, to the last byte.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, servers) = server_record::decode(VERSION, bytes, member)?;
        Some(Self { version, servers })
    }
}

fn write(server: &Member, out: &mut Vec<u8>) {
    let id = server.id.get(..usize::from(u8::MAX)).unwrap_or(&server.id);
    out.push(u8::try_from(id.len()).unwrap_or(0));
    out.extend(id.bytes());
    out.push(match server.admin {
        AdminChange::Ready => 0,
        AdminChange::Drain => 1,
        AdminChange::Maint => 2,
        AdminChange::Removed => 3,
    });
    out.extend(server.weight.unwrap_or(0).to_le_bytes());
    out.push(match server.tier {
        Tier::Primary => 0,
        Tier::Backup => 1,
    });
    match server.address.map(|address| address.ip()) {
        None => out.push(0),
        Some(IpAddr::V4(ip)) => {
            out.push(4);
            out.extend(ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    if let Some(address) = server.address {
        out.extend(address.port().to_le_bytes());
    }
}

fn member(rest: &mut &[u8]) -> Option<Member> {
    let length = usize::from(*rest.split_off_first()?);
    let id = std::str::from_utf8(rest.split_off(..length)?)
        .ok()?
        .to_owned();
    let admin = match rest.split_off_first()? {
        0 => AdminChange::Ready,
        1 => AdminChange::Drain,
        2 => AdminChange::Maint,
        3 => AdminChange::Removed,
        _ => return None,
    };
    let weight = u16::from_le_bytes(array(rest)?);
    let tier = match rest.split_off_first()? {
        0 => Tier::Primary,
        1 => Tier::Backup,
        _ => return None,
    };
    let ip = match rest.split_off_first()? {
        0 => None,
        4 => Some(IpAddr::V4(Ipv4Addr::from(array::<4>(rest)?))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(array::<16>(rest)?))),
        _ => return None,
    };
    let address = match ip {
        None => None,
        Some(ip) => Some(SocketAddr::new(ip, u16::from_le_bytes(array(rest)?))),
    };
    Some(Member {
        id,
        address,
        weight: (weight > 0).then_some(weight),
        admin,
        tier,
    })
}
