//! What commands print: a table for people or JSON for programs, from one value.

use std::io::{BufRead, IsTerminal, Read, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::exit::Told;

/// How to print.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON value.
    Json,
}

/// The choice of a format, for each command that prints a result.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct OutputArgs {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// A result that can be printed for people.
pub trait Show: Serialize {
    /// The text, with its last line ended.
    fn text(&self) -> String;
}

impl OutputArgs {
    /// Prints a result on stdout.
    ///
    /// # Errors
    /// If stdout does not take it.
    pub fn print(self, result: &impl Show) -> anyhow::Result<()> {
        let text = match self.output {
            Format::Table => result.text(),
            Format::Json => serde_json::to_string_pretty(result)? + "\n",
        };
        write_out(text.as_bytes())
    }
}

/// Writes to stdout as it is.
///
/// # Errors
/// If stdout does not take it.
pub fn write_out(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Writes a message for people, if anybody listens: results go to stdout, news to stderr.
pub fn tell(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Asks whether to go on; without a terminal there is nobody to ask.
///
/// # Errors
/// If nobody can be asked.
pub fn confirm(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Told(format!("{question} Nobody can be asked here: give --yes")).into());
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().take(64).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A table with these columns.
pub fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(columns);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table
}

/// The lines of a table, without the blanks at their ends.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// `1 node`, `3 nodes`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
