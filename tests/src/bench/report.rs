//! What was measured, as sections of rows, and how it is written.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::machine::Machine;
use super::svg;

#[derive(Debug)]
pub struct Report {
    pub machine: Machine,
    pub sections: Vec<Section>,
}

#[derive(Debug)]
pub struct Section {
    /// Names files: mode, bundle and measure.
    pub key: String,
    pub title: String,
    pub note: String,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub cells: Vec<Cell>,
    /// Raw, in microseconds, by label.
    pub samples: Vec<(String, Vec<u32>)>,
    pub failure: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Cell {
    None,
    Number(f64, usize),
    Text(String),
}

impl Cell {
    pub fn of(value: Option<f64>, digits: usize) -> Self {
        value.map_or(Self::None, |value| Self::Number(value, digits))
    }

    fn text(&self) -> String {
        match self {
            Self::None => "-".into(),
            Self::Number(value, digits) => format!("{value:.digits$}"),
            Self::Text(text) => text.clone(),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Number(value, _) => json!((value * 1000.0).round() / 1000.0),
            Self::Text(text) => json!(text),
        }
    }
}

impl Row {
    pub fn new(name: &str, cells: Vec<Cell>, failure: Option<String>) -> Self {
        Self { name: name.into(), cells, samples: Vec::new(), failure }
    }

    pub fn with(mut self, label: &str, samples: Vec<u32>) -> Self {
        self.samples.push((label.into(), samples));
        self
    }

    pub fn samples(&self, label: &str) -> Option<&[u32]> {
        let found = self.samples.iter().find(|(name, samples)| name == label && !samples.is_empty());
        found.map(|(_, samples)| samples.as_slice())
    }
}

impl Section {
    pub fn new(key: &str, title: &str) -> Self {
        Self {
            key: key.into(),
            title: title.into(),
            note: String::new(),
            columns: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub fn samples(&self, name: &str, label: &str) -> Option<&[u32]> {
        self.rows.iter().find(|row| row.name == name)?.samples(label)
    }

    pub fn drop_column(&mut self, name: &str) {
        let Some(at) = self.columns.iter().position(|column| column == name) else { return };
        self.columns.remove(at);
        for row in self.rows.iter_mut().filter(|row| row.cells.len() > at) {
            row.cells.remove(at);
        }
    }

    /// Header, then one line each; a row that failed has its error as last cell.
    fn lines(&self) -> Vec<Vec<String>> {
        let any_failed = self.rows.iter().any(|row| row.failure.is_some());
        let failed = any_failed.then(|| "FAILED".to_owned());
        let mut lines =
            vec![std::iter::once(String::new()).chain(self.columns.clone()).chain(failed).collect()];
        for row in &self.rows {
            let mut line = vec![row.name.clone()];
            line.extend((0..self.columns.len()).map(|at| row.cells.get(at).unwrap_or(&Cell::None).text()));
            line.extend(any_failed.then(|| row.failure.clone().unwrap_or_default()));
            lines.push(line);
        }
        lines
    }

    pub fn text(&self) -> String {
        let lines = self.lines();
        let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
        let mut text = format!("\n{}\n", self.title);
        for line in &lines {
            let mut out = String::new();
            for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Names and words to the left, numbers to the right.
                let is_word =
                    at == 0 || at > self.columns.len() || self.columns[at - 1].starts_with("most frequent");
                let _ =
                    if is_word { write!(out, "  {cell:<width$}") } else { write!(out, "  {cell:>width$}") };
            }
            text.push_str(out.trim_end());
            text.push('\n');
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "  ({})", self.note);
        }
        text
    }

    fn markdown(&self, pictures: Option<&Path>) -> String {
        let mut text = format!("\n**{}**\n\n", self.title);
        for (at, line) in self.lines().iter().enumerate() {
            let cells: Vec<String> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
            if at == 0 {
                let _ = writeln!(text, "|{}", " --- |".repeat(line.len()));
            }
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "\n{}", self.note);
        }
        if let Some(dir) = pictures.filter(|_| svg::is_worth_it(self)) {
            let _ =
                writeln!(text, "\n![{}]({})", self.title, dir.join(format!("{}.svg", self.key)).display());
        }
        text
    }

    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let values: BTreeMap<_, _> = self.columns.iter().zip(row.cells.iter().map(Cell::json)).collect();
            let samples: BTreeMap<_, _> = row.samples.iter().cloned().collect();
            json!({"name": row.name, "values": values, "samples_us": samples, "failure": row.failure})
        });
        json!({"key": self.key, "title": self.title, "note": self.note, "rows": rows.collect::<Vec<_>>()})
    }
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self { machine, sections: Vec::new() }
    }

    pub fn text(&self) -> String {
        let mut text: String = self.machine.lines().iter().map(|line| format!("{line}\n")).collect();
        self.sections.iter().for_each(|section| text.push_str(&section.text()));
        if self.machine.too_noisy {
            let _ = writeln!(text, "\nWARNING: {}", self.machine.verdict);
        }
        text
    }

    pub fn markdown(&self, pictures: Option<&Path>) -> String {
        let mut text: String = self.machine.lines().iter().map(|line| format!("- {line}\n")).collect();
        self.sections.iter().for_each(|section| text.push_str(&section.markdown(pictures)));
        text
    }

    pub fn json(&self) -> Value {
        let sections: Vec<_> = self.sections.iter().map(Section::json).collect();
        json!({"version": 1, "machine": self.machine.json(), "sections": sections})
    }
}
