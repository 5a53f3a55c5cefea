//! The scripts that clients may run: those that the gateway knows by text or by SHA-1, and can do itself.
//!
//! phpredis releases its session lock by a script (`LOCK_RELEASE_LUA_STR` in its `redis_session.c`): first by SHA-1, and by text if
//! it is told `NOSCRIPT`. A script is a program for the whole store, so any other is refused.

/// What phpredis releases a lock with.
pub const RELEASE: &str = "if redis.call(\"get\",KEYS[1]) == ARGV[1] then return redis.call(\"del\",KEYS[1]) else return 0 end";
/// The SHA-1 of [`RELEASE`].
pub const RELEASE_SHA: &str = "b70c2384248f88e6b75b9f89241a180f856ad852";
/// Ours: a lock goes on living if its value is the caller's.
pub const RENEW: &str = "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) else return 0 end";

/// Whether the argument of `EVAL` or `EVALSHA` is a known script, called with one key.
pub fn is_known(script: &[u8], keys: &[u8]) -> bool {
    keys == b"1" && (script == RELEASE.as_bytes() || is_known_sha(script))
}

/// Whether this is the SHA-1 of a known script, in any case of letters, as in Redis.
pub fn is_known_sha(sha: &[u8]) -> bool {
    sha.eq_ignore_ascii_case(RELEASE_SHA.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sha_is_that_of_the_text() {
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            RELEASE.as_bytes(),
        );
        let hex: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, RELEASE_SHA);
    }
}
