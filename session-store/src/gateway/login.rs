//! Who may log in, and how often somebody may be wrong.
//!
//! Passwords are compared by their HMAC under a key of this process: the time it takes says nothing about the password, and a name that
//! nobody has takes as long as one that somebody has. Who fails uses up what its address may fail ([`FAILURES_BURST`], then
//! [`FAILURES_PER_SECOND`]); an address that has used it up is refused without a look at the password, so that a failure cannot be told
//! from a refusal by its speed.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::{hmac, rand};
use bytes::Bytes;

use crate::backend::DATABASES;

const FAILURES_BURST: f64 = 20.0;
const FAILURES_PER_SECOND: f64 = 2.0;
/// Addresses that are remembered at a time; when there are more, those that have not failed lately are forgotten, or all.
const ADDRESSES_MAX: usize = 4096;
/// Whom `AUTH password` means, as in Redis.
const DEFAULT: &str = "default";

/// An entry of `session_store.auth`.
#[derive(Clone)]
pub struct User {
    pub name: String,
    pub password: String,
    /// Which databases this user may choose.
    pub databases: Vec<u8>,
    /// What is put before every key.
    pub prefix: Bytes,
}

impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "User({})", self.name)
    }
}

/// What somebody who is logged in may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) databases: Vec<u8>,
    pub(super) prefix: Bytes,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Wrong,
    TooOften,
    /// Nobody needs a password here, so a client that has one was set up for another place.
    NoPasswords,
}

pub(super) struct Logins {
    key: hmac::Key,
    users: HashMap<String, (hmac::Tag, Account)>,
    nobody: hmac::Tag,
    failures: Mutex<HashMap<Option<IpAddr>, Allowance>>,
}

/// How often an address may still fail.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Logins {
    pub(super) fn new(users: &[User]) -> Self {
        let mut secret = [0_u8; 32];
        // Without randomness the key is known, and comparing is still comparing.
        let _ = rand::fill(&mut secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let users = users.iter().map(|user| {
            let account = Account {
                databases: user.databases.clone(),
                prefix: user.prefix.clone(),
            };
            (
                user.name.clone(),
                (hmac::sign(&key, user.password.as_bytes()), account),
            )
        });
        Self {
            users: users.collect(),
            nobody: hmac::sign(&key, &secret),
            failures: Mutex::default(),
            key,
        }
    }

    /// What everybody may do without a password; `None`: nothing.
    pub(super) fn open(&self) -> Option<Account> {
        self.users.is_empty().then(|| Account {
            databases: (0..DATABASES).collect(),
            prefix: Bytes::new(),
        })
    }

    /// Lets somebody in, or not. `peer`: `None` for all who come through unix sockets.
    pub(super) fn check(
        &self,
        peer: Option<IpAddr>,
        name: Option<&[u8]>,
        password: &[u8],
        now: Instant,
    ) -> Result<Account, Denied> {
        if self.users.is_empty() {
            return Err(Denied::NoPasswords);
        }
        if !self.may_fail(peer, now) {
            return Err(Denied::TooOften);
        }
        let name = name.map_or(Some(DEFAULT), |name| std::str::from_utf8(name).ok());
        let user = name.and_then(|name| self.users.get(name));
        let expected = user.map_or(&self.nobody, |(tag, _)| tag);
        let is_right = hmac::verify(&self.key, password, expected.as_ref()).is_ok();
        match user {
            Some((_, account)) if is_right => Ok(account.clone()),
            _ => {
                self.failed(peer);
                Err(Denied::Wrong)
            }
        }
    }

    fn may_fail(&self, peer: Option<IpAddr>, now: Instant) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESSES_MAX && !failures.contains_key(&peer) {
            failures.retain(|_, allowance| allowance.left < 1.0);
            if failures.len() >= ADDRESSES_MAX {
                failures.clear();
            }
        }
        let allowance = failures.entry(peer).or_insert(Allowance {
            left: FAILURES_BURST,
            at: now,
        });
        let passed = now.saturating_duration_since(allowance.at).as_secs_f64();
        allowance.left = (allowance.left + passed * FAILURES_PER_SECOND).min(FAILURES_BURST);
        allowance.at = now;
        allowance.left >= 1.0
    }

    fn failed(&self, peer: Option<IpAddr>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowance) = failures.get_mut(&peer) {
            allowance.left -= 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn logins() -> Logins {
        let user = |name: &str, password: &str| User {
            name: name.to_owned(),
            password: password.to_owned(),
            databases: vec![0],
            prefix: Bytes::copy_from_slice(name.as_bytes()),
        };
        Logins::new(&[user("default", "first"), user("shop", "second")])
    }

    #[track_caller]
    fn check(name: Option<&str>, password: &str, expected: Result<&str, Denied>) {
        let found = logins().check(
            None,
            name.map(str::as_bytes),
            password.as_bytes(),
            Instant::now(),
        );
        let found = found.map(|account| String::from_utf8_lossy(&account.prefix).into_owned());
        assert_eq!(found, expected.map(str::to_owned), "{name:?} {password}");
    }

    #[test]
    fn names_and_passwords() {
        check(None, "first", Ok("default"));
        check(Some("default"), "first", Ok("default"));
        check(Some("shop"), "second", Ok("shop"));
        check(None, "second", Err(Denied::Wrong));
        check(Some("shop"), "first", Err(Denied::Wrong));
        check(Some("shop"), "", Err(Denied::Wrong));
        check(Some("nobody"), "first", Err(Denied::Wrong));
        let open = Logins::new(&[]);
        assert_eq!(
            open.check(None, None, b"x", Instant::now()),
            Err(Denied::NoPasswords)
        );
        assert_eq!(open.open().unwrap().databases.len(), 16);
    }

    #[test]
    fn who_is_wrong_too_often_waits_and_nobody_else() {
        let (logins, mut now) = (logins(), Instant::now());
        let (bad, good) = (
            Some(IpAddr::from([10, 0, 0, 1])),
            Some(IpAddr::from([10, 0, 0, 2])),
        );
        let mut wrong = 0;
        while logins.check(bad, None, b"guess", now) == Err(Denied::Wrong) {
            wrong += 1;
        }
        assert_eq!(f64::from(wrong), FAILURES_BURST);
        assert_eq!(
            logins.check(bad, None, b"first", now),
            Err(Denied::TooOften)
        );
        assert!(logins.check(good, None, b"first", now).is_ok());
        now += Duration::from_millis(501);
        assert!(logins.check(bad, None, b"first", now).is_ok());
    }

    #[test]
    fn addresses_are_bounded() {
        let (logins, now) = (logins(), Instant::now());
        for at in 0..20_000_u32 {
            let _ = logins.check(Some(IpAddr::from(at.to_be_bytes())), None, b"guess", now);
        }
        assert!(logins.failures.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
