//! What comes out: Markdown for people and the README, JSON for comparing runs.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::machine::Machine;
use crate::peers::{Choice, is_optimised, target_folder};

/// A figure evenkeel should not exceed.
#[derive(Debug)]
pub struct Target {
    pub what: String,
    /// `None`: not measured, so not shown.
    pub measured: Option<f64>,
    pub at_most: f64,
    pub digits: usize,
}

/// The result of one sub-command.
#[derive(Debug)]
pub struct Section {
    /// Its key in the JSON document.
    pub key: &'static str,
    pub markdown: String,
    pub json: Value,
    /// Rows whose figures do not count; the program then ends with an error, after it has written everything.
    pub invalid: Vec<String>,
    pub targets: Vec<Target>,
}

#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    /// Of the files, without their endings.
    name: &'static str,
    markdown: String,
    json: Map<String, Value>,
    invalid: Vec<String>,
    targets: Vec<Target>,
}

impl Report {
    pub fn begin(name: &'static str, scale: &Scale, choice: &Choice) -> Result<Self> {
        let folder = target_folder()?.join("bench");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        let machine = Machine::look();
        let mut markdown = machine.sentence();
        if !is_optimised() {
            markdown.push_str(" **Not an optimised build: the figures of evenkeel and of the load generator mean nothing.**");
        }
        if !choice.access_log {
            markdown.push_str(" No access log anywhere.");
        }
        let mut json = Map::new();
        json.insert("machine".into(), machine.json());
        json.insert("optimised".into(), json!(is_optimised()));
        json.insert("rounds".into(), json!(scale.rounds));
        json.insert("seconds".into(), json!(scale.measured.as_secs_f64()));
        json.insert("access_log".into(), json!(choice.access_log));
        Ok(Self {
            folder,
            name,
            markdown,
            json,
            invalid: Vec::new(),
            targets: Vec::new(),
        })
    }

    /// Takes a section in, and writes what there is so far: a later failure loses nothing.
    pub fn add(&mut self, section: Section) -> Result<()> {
        self.markdown.push_str("\n\n");
        self.markdown.push_str(section.markdown.trim_end());
        self.json.insert(section.key.into(), section.json);
        self.invalid.extend(section.invalid);
        self.targets.extend(section.targets);
        let targets = targets_table(&self.targets);
        let write = |ending: &str, text: &str| {
            let path = self.folder.join(self.name).with_extension(ending);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write("md", &format!("{}\n{targets}", self.markdown))?;
        write("json", &serde_json::to_string_pretty(&self.json)?)
    }

    /// Prints everything.
    ///
    /// # Errors
    /// When a row is invalid.
    pub fn finish(self) -> Result<()> {
        println!("{}\n{}", self.markdown, targets_table(&self.targets));
        eprintln!(
            "written to {}/{}.md and .json",
            self.folder.display(),
            self.name
        );
        anyhow::ensure!(
            self.invalid.is_empty(),
            "invalid: {}",
            self.invalid.join("; ")
        );
        Ok(())
    }
}

/// What was asked for beside what was measured; empty when nothing was measured that has a target.
fn targets_table(targets: &[Target]) -> String {
    let measured = targets
        .iter()
        .filter_map(|target| Some((target, target.measured?)));
    let rows: Vec<Vec<String>> = measured
        .map(|(target, measured)| {
            let verdict = if measured <= target.at_most {
                "met"
            } else {
                "**missed**"
            };
            let numbers = [
                figure(Some(measured), target.digits),
                figure(Some(target.at_most), target.digits),
            ];
            [target.what.clone()]
                .into_iter()
                .chain(numbers)
                .chain([verdict.to_owned()])
                .collect()
        })
        .collect();
    if rows.is_empty() {
        String::new()
    } else {
        format!("\n{}", table(&["target", "measured", "at most", ""], &rows))
    }
}

/// A Markdown table; every row has as many cells as there are columns.
pub fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    // The first column is text, the others are figures.
    let rule: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, _)| if index == 0 { "---" } else { "---:" }.to_owned())
        .collect();
    [line(&heads), line(&rule)]
        .into_iter()
        .chain(rows.iter().map(|row| line(row)))
        .collect()
}

/// `digits` after the point, or a dash.
pub fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let rows = [
            vec!["nginx".to_owned(), figure(Some(12.345), 1)],
            vec!["direct".to_owned(), figure(None, 1)],
        ];
        assert_eq!(
            table(&["proxy", "µs"], &rows),
            "| proxy | µs |\n| --- | ---: |\n| nginx | 12.3 |\n| direct | – |\n"
        );
    }
}
