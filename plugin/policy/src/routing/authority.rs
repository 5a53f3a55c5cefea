//! What may stand in `Host` or `:authority`: a host, and a port behind it (RFC 9112 section 3.2).
//!
//! Routes look at the host without its port, and servers read the whole. Of what is neither, each would make something else: a list of two
//! hosts, which some proxies make of two lines, a user before the host, a port that is none.

/// Whether it is a host with or without a port, or empty, which is allowed where a target has no authority. Nothing that a log or a header
/// could be broken with, and nothing that begins a path.
pub fn is_authority(host: &[u8]) -> bool {
    let is_clean = host.iter().all(|byte| {
        byte.is_ascii_graphic()
            && !matches!(
                byte,
                b'/' | b'\\' | b'@' | b'?' | b'#' | b',' | b'"' | b'<' | b'>'
            )
    });
    is_clean && is_port_or_nothing(behind_host(host))
}

/// What stands behind the name, or behind the brackets of an IPv6 address.
fn behind_host(host: &[u8]) -> &[u8] {
    let end = match host.first() {
        Some(b'[') => host
            .iter()
            .position(|byte| *byte == b']')
            .map(|bracket| bracket + 1),
        _ => host.iter().position(|byte| *byte == b':'),
    };
    end.and_then(|end| host.get(end..)).unwrap_or_default()
}

/// Nothing, a colon alone, or a colon and a port.
fn is_port_or_nothing(text: &[u8]) -> bool {
    let Some((colon, digits)) = text.split_first() else {
        return true;
    };
    // As a number, so that zeros before it count for nothing; it stays small as long as it is a port.
    let mut port = Some(0_u32);
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => u32::from(digit - b'0'),
            _ => return false,
        };
        port = port
            .map(|port| port * 10 + value)
            .filter(|port| *port <= u32::from(u16::MAX));
    }
    *colon == b':' && port.is_some()
}

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn a_host_and_a_port_and_nothing_else() {
        for host in [
            "",
            "a",
            "a.example",
            "a:",
            "a:80",
            "a:65535",
            "a.:80",
            "a_b",
            "1.2.3.4:80",
            "[::1]",
            "[::1]:",
            "[2001:db8::1]:80",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for host in [
            "a b",
            "a,b",
            "a@b",
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "a\"b",
            "a<b>",
            "a:80b",
            "a:65536",
            "a:99999999999999999999",
            "a:-1",
            "a:80:80",
            "::1",
            "[::1]80",
            "[::1]x:80",
            "a\tb",
            "\u{e9}",
        ] {
            assert!(!is_authority(host.as_bytes()), "{host}");
        }
    }
}
