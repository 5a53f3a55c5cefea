//! Names of listeners, pools and servers, and what somebody may have meant by a name that does not exist.

use crate::contract::{RESERVED_PREFIX, SESSION_STORE_CLUSTER};

/// Longest name, bytes.
const NAME_BYTES_MAX: usize = 63;
/// Longest text that is compared to find what was meant.
const COMPARED_BYTES_MAX: usize = 64;

/// Whether `name` may name a listener, a pool or a server: `[A-Za-z0-9][A-Za-z0-9_-]{0,62}`, not `session-store`, not
/// beginning with `evenkeel`. The error says what was expected.
pub fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let starts_well = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let goes_on_well =
        bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !starts_well || !goes_on_well || name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "expected a name of letters, digits, `_` and `-`, at most {NAME_BYTES_MAX} long, beginning with a letter or digit; found `{}`",
            shortened(name)
        ));
    }
    if name == SESSION_STORE_CLUSTER || name.starts_with(RESERVED_PREFIX) {
        return Err(format!("the name `{name}` is reserved"));
    }
    Ok(())
}

/// The known name that `unknown` most likely stands for: at most a third of its letters, rounded up, and at most three differ.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = unknown.len().div_ceil(3).clamp(1, 3);
    known
        .map(|name| (distance(unknown, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A text cut to what fits in a message.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 80;
    if text.chars().count() <= SHOWN_CHARACTERS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
    short.push('…');
    short
}

/// Letters to insert, remove or replace (Levenshtein), case apart; large for long texts.
fn distance(left: &str, right: &str) -> usize {
    if left.len() > COMPARED_BYTES_MAX || right.len() > COMPARED_BYTES_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut last = i + 1;
        if let Some(first) = row.first_mut() {
            *first = last;
        }
        for (cell, r) in row.iter_mut().skip(1).zip(right.bytes()) {
            let replaced = diagonal + usize::from(!l.eq_ignore_ascii_case(&r));
            diagonal = *cell;
            last = replaced.min(*cell + 1).min(last + 1);
            *cell = last;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_plain_and_not_reserved() {
        for good in ["shop", "web1", "a", "A-b_c", "0", &"x".repeat(63)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-a",
            "_a",
            "a.b",
            "a b",
            "ä",
            "session-store",
            "evenkeel",
            "evenkeel2",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let known = ["weight", "address", "backup"];
        assert_eq!(nearest("wieght", known.into_iter()), Some("weight"));
        assert_eq!(nearest("Backup", known.into_iter()), Some("backup"));
        assert_eq!(nearest("adress", known.into_iter()), Some("address"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }
}
