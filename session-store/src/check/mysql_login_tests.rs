//! Logins by `caching_sha2_password` against a double that checks them as MySQL's server does (its manual, "Caching SHA-2 Pluggable
//! Authentication"). There is no MySQL to run here, only MariaDB, which has no such plugin: tests/e2e asks that one.

use std::net::SocketAddr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Check, Mysql, run};

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
const PASSWORD: &str = "correct horse";
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const DENIED: &[u8] = b"\xff\x15\x04#28000Access denied";

/// Whether the server has the hash of the password at hand, or wants the password itself.
#[derive(Clone, Copy)]
enum Cache {
    Warm,
    Cold,
}

struct Peer {
    stream: TcpStream,
    sequence: u8,
}

impl Peer {
    async fn send(&mut self, payload: &[u8]) {
        let [a, b, c, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let packet = [&[a, b, c, self.sequence], payload].concat();
        self.sequence += 1;
        self.stream.write_all(&packet).await.unwrap();
    }

    async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) | usize::from(head[1]) << 8;
        self.sequence = head[3] + 1;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(payload)
    }
}

fn greeting() -> Vec<u8> {
    let mut greeting = vec![10];
    greeting.extend(b"8.4.0\0\x01\0\0\0");
    greeting.extend(&NONCE[..8]);
    greeting.push(0);
    greeting.extend([0xff, 0xf7, 45, 2, 0, 0xff, 0xdf, 21]);
    greeting.extend([0; 10]);
    greeting.extend(&NONCE[8..]);
    greeting.extend(b"\0caching_sha2_password\0");
    greeting
}

/// What a server whose cache is warm holds is the double hash: the answer, exclusive or with the hash of that and the nonce, is what
/// hashes to it.
fn is_right(scramble: &[u8]) -> bool {
    let sha = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
    let stored = sha(&sha(PASSWORD.as_bytes()));
    let mask = sha(&[&stored[..], NONCE].concat());
    let once: Vec<u8> = scramble.iter().zip(&mask).map(|(a, b)| a ^ b).collect();
    sha(&once) == stored
}

fn pem(key: &PrivateDecryptingKey) -> Vec<u8> {
    let der = key.public_key().as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n").into_bytes()
}

/// Serves one login and what is asked after it.
async fn serve(stream: TcpStream, cache: Cache) {
    let mut peer = Peer {
        stream,
        sequence: 0,
    };
    peer.send(&greeting()).await;
    let login = peer.receive().await.unwrap();
    // Capabilities, packet size, charset, filler; the user; the length of the answer, the answer.
    let rest = &login[4 + 4 + 1 + 23..];
    let user = rest.iter().position(|byte| *byte == 0).unwrap();
    assert_eq!(&rest[..user], b"evenkeel");
    let length = usize::from(rest[user + 1]);
    let scramble = &rest[user + 2..user + 2 + length];
    let plugin = &rest[user + 2 + length..];
    assert!(plugin.starts_with(b"caching_sha2_password\0"));
    let is_right = match cache {
        Cache::Warm => {
            let is_right = is_right(scramble);
            if is_right {
                peer.send(&[1, 3]).await;
            }
            is_right
        }
        Cache::Cold => {
            peer.send(&[1, 4]).await;
            assert_eq!(peer.receive().await.unwrap(), [2], "asks for the key");
            let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
            peer.send(&[&[1], &pem(&key)[..]].concat()).await;
            let cipher = peer.receive().await.unwrap();
            let key = OaepPrivateDecryptingKey::new(key).unwrap();
            let mut plain = vec![0; key.min_output_size()];
            let plain = key
                .decrypt(&OAEP_SHA1_MGF1SHA1, &cipher, &mut plain, None)
                .unwrap();
            let plain: Vec<u8> = plain
                .iter()
                .zip(NONCE.iter().cycle())
                .map(|(a, b)| a ^ b)
                .collect();
            plain == [PASSWORD.as_bytes(), &[0]].concat()
        }
    };
    if !is_right {
        return peer.send(DENIED).await;
    }
    peer.send(OK).await;
    assert_eq!(peer.receive().await.unwrap(), [14], "a ping");
    peer.send(OK).await;
}

#[track_caller]
fn check(cache: Cache, password: &str, expected: Result<(), &str>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let mysql = Check::Mysql(Mysql {
            user: "evenkeel".to_owned(),
            password: password.to_owned(),
            query: None,
            equals: None,
        });
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, cache).await;
        };
        let asking = run(&mysql, address, Duration::from_secs(30));
        tokio::join!(server, asking).1.outcome
    });
    assert_eq!(outcome, expected.map_err(str::to_owned));
}

#[test]
fn a_warm_cache_takes_the_hash() {
    check(Cache::Warm, PASSWORD, Ok(()));
    check(Cache::Warm, "wrong", Err("error 1045: Access denied"));
}

#[test]
fn a_cold_cache_takes_the_password_under_the_servers_key() {
    check(Cache::Cold, PASSWORD, Ok(()));
    check(Cache::Cold, "wrong", Err("error 1045: Access denied"));
}
