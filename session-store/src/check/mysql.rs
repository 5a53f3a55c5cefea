//! MySQL and MariaDB: the handshake, a login, and one query or a ping.
//!
//! Only what a check needs of the protocol (MySQL Internals, "Client/Server Protocol"): no TLS, text results, the first column of the
//! first row. A password goes over the wire hashed (`mysql_native_password`, `caching_sha2_password`), or, where the server has no hash of it
//! in its cache, encrypted for the server's public key, which it tells itself: as safe as the network between the two, like all of a
//! login without TLS. (MySQL's own client asks for the key only when told to: whoever can put himself in between gets the password.) So
//! the user of a check should be allowed nothing but the query.
//!
//! `mysql_native_password` is tested against MariaDB; `caching_sha2_password` only against vectors and a double of our own.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Mysql, tcp};

/// Longest packet that is read.
const PACKET_MAX: usize = 64 * 1024;
/// Most packets of one answer, rows and columns: a query of a check has few.
const PACKETS_MAX: usize = 256;
/// Most rounds of a login.
const ROUNDS_MAX: usize = 6;
/// `CLIENT_LONG_PASSWORD | CLIENT_PROTOCOL_41 | CLIENT_TRANSACTIONS | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x1 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
/// `utf8mb4_general_ci`.
const CHARSET: u8 = 45;
const NATIVE: &str = "mysql_native_password";
const CACHING: &str = "caching_sha2_password";
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;
const COM_PING: u8 = 14;

/// Asks on a connection of its own.
pub(super) async fn check(address: SocketAddr, check: &Mysql) -> Result<(), String> {
    let stream = tcp::connect(address).await?;
    let mut server = Server {
        stream,
        sequence: 0,
    };
    let greeting = Greeting::read(&server.receive().await?)?;
    server.log_in(&greeting, check).await?;
    let outcome = server.ask(check).await;
    // Without it the server counts a connection that was aborted.
    server.sequence = 0;
    let _ = server.send(&[COM_QUIT]).await;
    outcome
}

struct Server {
    stream: TcpStream,
    /// Of the next packet.
    sequence: u8,
}

impl Server {
    async fn receive(&mut self) -> Result<Vec<u8>, String> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await.map_err(broken)?;
        let [a, b, c, sequence] = head;
        let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        if length > PACKET_MAX {
            return Err(format!(
                "a packet of {length} bytes: this is no MySQL, or too much of it"
            ));
        }
        self.sequence = sequence.wrapping_add(1);
        let mut packet = vec![0; length];
        self.stream.read_exact(&mut packet).await.map_err(broken)?;
        Ok(packet)
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        let length = u32::try_from(payload.len())
            .ok()
            .filter(|_| payload.len() <= PACKET_MAX);
        let [a, b, c, _] = length.ok_or("the query is too long")?.to_le_bytes();
        let mut packet = vec![a, b, c, self.sequence];
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await.map_err(broken)
    }

    async fn log_in(&mut self, greeting: &Greeting, check: &Mysql) -> Result<(), String> {
        let (mut plugin, mut nonce) = (greeting.plugin.clone(), greeting.nonce.clone());
        // What the server suggests need not be what the user has: then it says so.
        if plugin != NATIVE && plugin != CACHING {
            plugin = NATIVE.to_owned();
        }
        let mut response = CAPABILITIES.to_le_bytes().to_vec();
        response.extend(u32::try_from(PACKET_MAX).unwrap_or(u32::MAX).to_le_bytes());
        response.push(CHARSET);
        response.extend([0; 23]);
        response.extend(without_nul(&check.user)?);
        response.push(0);
        let hashed = hashed(&plugin, &check.password, &nonce)?;
        response.push(u8::try_from(hashed.len()).unwrap_or(0));
        response.extend(hashed);
        response.extend(plugin.bytes());
        response.push(0);
        self.send(&response).await?;
        for _ in 0..ROUNDS_MAX {
            let packet = self.receive().await?;
            match packet.split_first() {
                Some((0, _)) => return Ok(()),
                Some((0xff, rest)) => return Err(error(rest)),
                Some((0xfe, rest)) => {
                    let (name, data) =
                        until_nul(rest).ok_or("a login of an age before MySQL 4.1")?;
                    plugin = String::from_utf8_lossy(name).into_owned();
                    nonce = data.strip_suffix(&[0]).unwrap_or(data).to_vec();
                    let answer = self::hashed(&plugin, &check.password, &nonce)?;
                    self.send(&answer).await?;
                }
                // The hash is in the server's cache, and right: OK follows.
                Some((1, [3])) => {}
                // It is not: the server wants the password itself, and first tells its public key.
                Some((1, [4])) => self.send(&[2]).await?,
                Some((1, pem)) => {
                    let answer = encrypted(&check.password, &nonce, pem)?;
                    self.send(&answer).await?;
                }
                _ => return Err("an answer to the login that is not understood".to_owned()),
            }
        }
        Err("the login takes too many rounds".to_owned())
    }

    async fn ask(&mut self, check: &Mysql) -> Result<(), String> {
        self.sequence = 0;
        let Some(query) = &check.query else {
            self.send(&[COM_PING]).await?;
            return match self.receive().await?.split_first() {
                Some((0, _)) => Ok(()),
                Some((0xff, rest)) => Err(error(rest)),
                _ => Err("an answer to the ping that is not understood".to_owned()),
            };
        };
        self.send(&[&[COM_QUERY], query.as_bytes()].concat())
            .await?;
        let found = self.first_value().await?;
        match (&check.equals, found) {
            (None, _) => Ok(()),
            (Some(wanted), Some(found)) if wanted.as_bytes() == found => Ok(()),
            (Some(wanted), Some(found)) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                Err(format!("the query is answered `{found}`, not `{wanted}`"))
            }
            (Some(_), None) => Err("the query is answered by no value".to_owned()),
        }
    }

    /// The first column of the first row of a text result; `None`: no row, or NULL.
    async fn first_value(&mut self) -> Result<Option<Vec<u8>>, String> {
        let head = self.receive().await?;
        match head.split_first() {
            Some((0, _)) => return Ok(None),
            Some((0xff, rest)) => return Err(error(rest)),
            // 0xfb: the server asks for a file of ours.
            Some((0xfb, _)) | None => {
                return Err("an answer to the query that is not understood".to_owned());
            }
            Some(_columns) => {}
        }
        let mut value = None;
        let mut is_in_rows = false;
        for _ in 0..PACKETS_MAX {
            let packet = self.receive().await?;
            match packet.first() {
                Some(0xff) => return Err(error(packet.get(1..).unwrap_or_default())),
                Some(0xfe) if packet.len() < 9 && is_in_rows => return Ok(value.flatten()),
                Some(0xfe) if packet.len() < 9 => is_in_rows = true,
                _ if is_in_rows && value.is_none() => value = Some(text(&packet)?),
                _ => {}
            }
        }
        Err("the query is answered by too many rows".to_owned())
    }
}

/// What a server says first (HandshakeV10).
struct Greeting {
    nonce: Vec<u8>,
    plugin: String,
}

impl Greeting {
    fn read(packet: &[u8]) -> Result<Self, String> {
        match packet.split_first() {
            Some((0xff, rest)) => Err(error(rest)),
            Some((10, rest)) => {
                Self::fields(rest).ok_or_else(|| "a greeting that breaks off".to_owned())
            }
            _ => Err("a greeting that is not MySQL's".to_owned()),
        }
    }

    fn fields(rest: &[u8]) -> Option<Self> {
        let (_version, rest) = until_nul(rest)?;
        let (first, rest) = rest.get(4..)?.split_first_chunk::<8>()?;
        // A filler, capabilities, charset, status, capabilities, the length of all of the nonce, ten bytes for nothing.
        let rest = rest.get(1 + 2 + 1 + 2 + 2..)?;
        let (length, rest) = rest.split_first()?;
        let second = usize::from(*length).saturating_sub(8).max(13);
        let rest = rest.get(10..)?;
        let second_part = rest.get(..second)?;
        let nonce = [
            &first[..],
            second_part.strip_suffix(&[0]).unwrap_or(second_part),
        ]
        .concat();
        let plugin = rest.get(second..).unwrap_or_default();
        let plugin = until_nul(plugin).map_or(plugin, |(plugin, _)| plugin);
        Some(Self {
            nonce,
            plugin: String::from_utf8_lossy(plugin).into_owned(),
        })
    }
}

/// The password as a plugin wants it; no password is nothing.
fn hashed(plugin: &str, password: &str, nonce: &[u8]) -> Result<Vec<u8>, String> {
    let password = password.as_bytes();
    if password.is_empty() && (plugin == NATIVE || plugin == CACHING) {
        return Ok(Vec::new());
    }
    match plugin {
        NATIVE => {
            let sha = |bytes: &[u8]| digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec();
            let once = sha(password);
            Ok(xor(&once, &sha(&[nonce, &sha(&once)].concat())))
        }
        CACHING => {
            let sha = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
            let once = sha(password);
            Ok(xor(&once, &sha(&[&sha(&once), nonce].concat())))
        }
        other => Err(format!(
            "the user logs in by `{other}`: {NATIVE} and {CACHING} are known"
        )),
    }
}

/// The password for the server's public key: exclusive or with the nonce, then RSA with OAEP.
fn encrypted(password: &str, nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = "the server's public key is none";
    let pem = std::str::from_utf8(pem).map_err(|_| wrong)?;
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .map_err(|_| wrong)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| wrong)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| wrong)?;
    let plain = [password.as_bytes(), &[0]].concat();
    let plain: Vec<u8> = plain
        .iter()
        .zip(nonce.iter().cycle())
        .map(|(a, b)| a ^ b)
        .collect();
    let mut out = vec![0; key.ciphertext_size()];
    let cipher = key.encrypt(&OAEP_SHA1_MGF1SHA1, &plain, &mut out, None);
    cipher
        .map(|cipher| cipher.to_vec())
        .map_err(|_| "the password is too long".to_owned())
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

fn without_nul(text: &str) -> Result<impl Iterator<Item = u8> + '_, String> {
    if text.contains('\0') {
        return Err("a user's name with a NUL".to_owned());
    }
    Ok(text.bytes())
}

fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// The first text of a row; `None` is NULL.
fn text(row: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let cut = || "a row that breaks off".to_owned();
    let (first, rest) = row.split_first().ok_or_else(cut)?;
    let (length, rest) = match first {
        0xfb => return Ok(None),
        // Longer ones are more than a packet holds, or the next.
        0xfc => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        0xfd..=0xff => return Err("a value that is too long".to_owned()),
        short => (usize::from(*short), rest),
    };
    Ok(Some(rest.get(..length).ok_or_else(cut)?.to_vec()))
}

/// An ERR packet in words: number, and text without the state before it.
fn error(rest: &[u8]) -> String {
    let Some((code, text)) = rest.split_first_chunk::<2>() else {
        return "an error without words".to_owned();
    };
    let text = match text.split_first() {
        Some((b'#', _)) => text.get(6..).unwrap_or_default(),
        _ => text,
    };
    let code = u16::from_le_bytes(*code);
    format!("error {code}: {}", String::from_utf8_lossy(text))
}

fn broken(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn passwords_are_hashed_as_the_plugins_want_them() {
        let nonce: Vec<u8> = (1..=20).collect();
        assert!(hashed(NATIVE, "", &nonce).unwrap().is_empty());
        assert!(hashed("client_ed25519", "x", &nonce).is_err());
        // Python: hashlib, by the formulas of the manual.
        assert_eq!(
            hex(&hashed(NATIVE, "secret", &nonce).unwrap()),
            "b32bb3a583e1340c0a1108d58b1be49781ad8c2f"
        );
        assert_eq!(
            hex(&hashed(CACHING, "secret", &nonce).unwrap()),
            "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9"
        );
    }

    #[test]
    fn greetings_that_break_off_are_refused() {
        let mut greeting = vec![10];
        greeting.extend(b"8.0.36\0\x01\0\0\0abcdefgh\0");
        greeting.extend([0xff, 0xf7, 45, 2, 0, 0xff, 0xdf, 21]);
        greeting.extend([0; 10]);
        greeting.extend(b"ijklmnopqrst\0caching_sha2_password\0");
        let read = Greeting::read(&greeting).unwrap();
        assert_eq!(read.nonce, b"abcdefghijklmnopqrst");
        assert_eq!(read.plugin, CACHING);
        let least = greeting.len() - CACHING.len() - 1;
        for end in 0..least {
            assert!(Greeting::read(&greeting[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn values_and_errors_are_read() {
        assert_eq!(text(b"\x010\x03abc"), Ok(Some(b"0".to_vec())));
        assert_eq!(text(b"\xfb"), Ok(None));
        assert_eq!(text(b"\xfc\x02\0ab"), Ok(Some(b"ab".to_vec())));
        for wrong in [&b""[..], b"\x05abc", b"\xfc\x02", b"\xfd\x01\0\0a"] {
            assert!(text(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            error(b"\x15\x04#28000Access denied"),
            "error 1045: Access denied"
        );
        assert_eq!(
            error(b"\x10\x04Too many connections"),
            "error 1040: Too many connections"
        );
        assert_eq!(error(b"\x10"), "an error without words");
    }
}
