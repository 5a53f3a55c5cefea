//! Lists of statuses as they are written: `[200, 301-399]`.

use serde_json::Value;

use super::ConfigError;

/// Most entries of a list.
const ENTRIES_MAX: usize = 64;

/// A set of statuses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusSet {
    ranges: Vec<(u16, u16)>,
}

impl StatusSet {
    /// All from `first` to `last`.
    pub(super) fn range(first: u16, last: u16) -> Self {
        Self {
            ranges: vec![(first, last)],
        }
    }

    pub fn contains(&self, status: u16) -> bool {
        self.ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Reads a list of statuses and ranges of them.
pub(super) fn statuses(path: &str, list: &[Value]) -> Result<StatusSet, ConfigError> {
    if list.len() > ENTRIES_MAX {
        let message = format!(
            "expected at most {ENTRIES_MAX} entries, found {}",
            list.len()
        );
        return Err(ConfigError::new(path, message));
    }
    let mut ranges = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let range = one(entry).ok_or_else(|| {
            let message = format!("expected a status or a range such as 200-399, found {entry}");
            ConfigError::new(format!("{path}[{index}]"), message)
        })?;
        ranges.push(range);
    }
    Ok(StatusSet { ranges })
}

fn one(entry: &Value) -> Option<(u16, u16)> {
    let (first, last) = match entry {
        Value::Number(number) => {
            let status = u16::try_from(number.as_u64()?).ok()?;
            (status, status)
        }
        Value::String(text) => match text.split_once('-') {
            Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
            None => {
                let status = text.trim().parse().ok()?;
                (status, status)
            }
        },
        _ => return None,
    };
    let known = 100..=599;
    (known.contains(&first) && known.contains(&last) && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn statuses_stand_alone_or_in_ranges() {
        let list = [json!("200-399"), json!(404), json!("451")];
        let set = statuses("expect", &list).unwrap();
        for (status, expected) in [
            (199, false),
            (200, true),
            (399, true),
            (400, false),
            (404, true),
            (451, true),
        ] {
            assert_eq!(set.contains(status), expected, "{status}");
        }
        for wrong in [
            json!("399-200"),
            json!(99),
            json!(600),
            json!("2xx"),
            json!("200-"),
            json!(-1),
            json!([200]),
            json!(200.5),
            json!(65_736),
        ] {
            let error = statuses("expect", &[json!(200), wrong.clone()]).expect_err("refused");
            assert_eq!(error.path, "expect[1]", "{wrong}");
        }
    }
}
