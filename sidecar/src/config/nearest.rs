//! The known name that a mistyped one probably meant.

/// Longest name that is compared: the effort is the product of both lengths.
const NAME_BYTES_MAX: usize = 64;

/// The name among `known` that is nearest to `found`: at most a third of its letters differ. `None` when nothing is near.
pub fn nearest<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if found.len() > NAME_BYTES_MAX {
        return None;
    }
    let bound = found.len() / 3 + 1;
    known
        .into_iter()
        .map(|name| {
            (
                distance(&found.to_ascii_lowercase(), &name.to_ascii_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= bound && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance, over bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (r, above) in right.bytes().zip(row.iter_mut().skip(1)) {
            let here = (diagonal + usize::from(l != r))
                .min(before + 1)
                .min(*above + 1);
            diagonal = *above;
            *above = here;
            before = here;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(left.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(found: &str, expected: Option<&str>) {
        assert_eq!(
            nearest(found, ["listeners", "bind", "tls", "access_log"]),
            expected,
            "{found}"
        );
    }

    #[test]
    fn offers_what_was_probably_meant() {
        check("listener", Some("listeners"));
        check("accesslog", Some("access_log"));
        check("Bind", Some("bind"));
        check("tsl", Some("tls"));
        check("tl", Some("tls"));
        check("zzz", None);
        check("", None);
    }

    #[test]
    fn distances() {
        assert_eq!(
            [
                distance("", "abc"),
                distance("abc", "abc"),
                distance("kitten", "sitting"),
                distance("ab", "ba")
            ],
            [3, 0, 3, 2]
        );
    }
}
