//! `real_ip`: whose word on the client's address is taken, and in which header it stands.

use ipnet::IpNet;
use std::net::IpAddr;

use super::document::RealIpDocument;
use super::names::shortened;
use super::{ConfigError, TRUSTED_MAX};
use crate::client_ip::{AddressHeader, RealIp, TrustedNetworks, Walk};
use crate::exchange::is_header_name;

/// Reads `real_ip`. Without `header` it is `X-Forwarded-For`; without `recursive` the walk goes past trusted proxies.
pub(super) fn real_ip(document: Option<&RealIpDocument>) -> Result<Option<RealIp>, ConfigError> {
    let Some(document) = document else {
        return Ok(None);
    };
    let trusted = network_set("real_ip.trusted", &document.trusted.0)?;
    let header = match document.header.as_deref() {
        None => AddressHeader::ForwardedFor,
        Some(name) => {
            header(name).map_err(|message| ConfigError::new("real_ip.header", message))?
        }
    };
    let walk = if document.recursive.unwrap_or(true) {
        Walk::PastTrusted
    } else {
        Walk::LastOnly
    };
    Ok(Some(RealIp {
        trusted,
        header,
        walk,
    }))
}

/// A set of addresses and networks, 1 to [`TRUSTED_MAX`] of them; `path` is where they stand.
///
/// # Errors
/// None or too many, or one that is neither an address nor a network.
pub fn network_set(path: &str, texts: &[String]) -> Result<TrustedNetworks, ConfigError> {
    if texts.is_empty() {
        return Err(ConfigError::new(
            path,
            "expected at least one address or network",
        ));
    }
    if texts.len() > TRUSTED_MAX {
        return Err(ConfigError::new(
            path,
            format!(
                "expected at most {TRUSTED_MAX} networks, found {}",
                texts.len()
            ),
        ));
    }
    let mut networks = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        networks.push(
            network(text)
                .map_err(|message| ConfigError::new(format!("{path}[{index}]"), message))?,
        );
    }
    Ok(TrustedNetworks::new(&networks))
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    text.parse::<IpNet>().map_err(|_| {
        format!(
            "expected an address or a network such as 10.0.0.0/8, found `{}`",
            shortened(text)
        )
    })
}

fn header(name: &str) -> Result<AddressHeader, String> {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "proxy_protocol" => Ok(AddressHeader::ProxyProtocol),
        "forwarded" => Ok(AddressHeader::Forwarded),
        "x-forwarded-for" => Ok(AddressHeader::ForwardedFor),
        _ if is_header_name(&lower) => Ok(AddressHeader::Named(lower.into_bytes())),
        _ => Err(format!(
            "expected the name of a header, found `{}`",
            shortened(name)
        )),
    }
}
